"""A client that does what a well-behaved one never would: dribble, stop reading, or just leave."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message


@dataclass
class Reply:
    """What came back until the connection ended."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False


@dataclass
class Visitor:
    """One request, sent by hand.

    Attributes:
        method: Of HTTP.
        path: Without a query.
        query: Behind it.
        headers: By name.
        leave: Whether to hang up, asked after every part of the answer.
    """

    method: str
    path: str
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    leave: Callable[[Reply], bool] = lambda _: False

    async def visit(self, app: ASGIApp, parts: AsyncIterator[bytes] | None = None) -> Reply:
        """Send the parts of the body, and take in the answer."""
        reply, left = Reply(), asyncio.Event()
        source = parts or _nothing()
        pending: list[bytes | None] = [await anext(source, None)]

        async def receive() -> Message:
            part = pending[0]
            if part is None:
                await left.wait()
                return {"type": "http.disconnect"}
            pending[0] = await anext(source, None)
            return {"type": "http.request", "body": part, "more_body": pending[0] is not None}

        async def send(message: Message) -> None:
            _take(reply, message)
            if self.leave(reply) or reply.complete:
                left.set()
            await asyncio.sleep(0)

        await app(self._scope(), receive, send)
        return reply

    def _scope(self) -> dict[str, Any]:
        headers = {"host": "127.0.0.1:8123", **self.headers}
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": self.path,
            "raw_path": self.path.encode(),
            "root_path": "",
            "query_string": self.query.encode(),
            "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
            "client": ("127.0.0.1", 50_000),
            "server": ("127.0.0.1", 8123),
        }


async def _nothing() -> AsyncIterator[bytes]:
    yield b""


def _take(reply: Reply, message: Message) -> None:
    if message["type"] == "http.response.start":
        reply.status = message["status"]
        reply.headers = {k.decode(): v.decode() for k, v in message["headers"]}
    else:
        reply.body += message.get("body", b"")
        reply.complete = not message.get("more_body", False)
