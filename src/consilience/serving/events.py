"""Server-sent events: a response that is told bit by bit, and that notices when nobody listens.

After ten seconds of silence a comment keeps the connection open. A listener that has gone, or that
stops reading, ends the work behind the events. Knows nothing of what the events are about.
"""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from consilience.errors import ConsilienceError
from consilience.serving.errors import internal_error
from consilience.serving.failing import failure_body

Event = tuple[str, dict[str, Any]]
"""Its name and its data."""

SILENCE = 10.0
"""Seconds after which a comment is sent."""

PATIENCE = 30.0
"""Seconds that a listener may let its connection fill up."""


def _nothing() -> None:
    return


class EventStream(Response):
    """`text/event-stream` of events with a name and JSON data.

    An error that the events raise is told as the last event, `error`, with the body that it has
    everywhere else.

    Args:
        request: What is answered.
        events: What to tell.
        ended: Called once when it is over, in whichever way: there the work is cancelled.
        spelled: How an event of a name and data is sent; None for both.
        last: Sent after the last event, when there was no error.
        status_code: Of HTTP.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        request: Request,
        events: AsyncIterator[Event],
        *,
        ended: Callable[[], None] = _nothing,
        spelled: Callable[[str, dict[str, Any]], bytes] | None = None,
        last: bytes = b"",
        status_code: int = 200,
    ) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(status_code=status_code, headers=headers)
        del self.headers["content-length"]
        self._request = request
        self._events = events
        self._ended = ended
        self._spelled = spelled or as_event
        self._last = last
        self._mistake: Exception | None = None

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Tell the events, until they end or the listener has gone."""
        start = {"type": "http.response.start", "headers": self.raw_headers}
        try:
            await send({**start, "status": self.status_code})
            async with anyio.create_task_group() as group:
                group.start_soon(_until_gone, receive, group.cancel_scope)
                await self._tell(send)
                group.cancel_scope.cancel()
        finally:
            self._ended()
        if self._mistake is not None:
            raise self._mistake

    async def _tell(self, send: Send) -> None:
        put, take = anyio.create_memory_object_stream[bytes](1)
        async with anyio.create_task_group() as group:
            group.start_soon(self._put_all, put)
            async with take:
                heard = await _send_all(take, send)
                group.cancel_scope.cancel()
        if heard:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _put_all(self, put: MemoryObjectSendStream[bytes]) -> None:
        async with put:
            try:
                async for name, data in self._events:
                    await put.send(self._spelled(name, data))
                if self._last:
                    await put.send(self._last)
            except ConsilienceError as error:
                await put.send(self._failed(error))
            except Exception as error:  # noqa: BLE001 - the edge: told now, raised at the end
                self._mistake = error
                await put.send(self._failed(internal_error(error)))

    def _failed(self, error: ConsilienceError) -> bytes:
        self._request.scope["consilience.error"] = error
        return as_event("error", failure_body(self._request, error))


async def _send_all(take: MemoryObjectReceiveStream[bytes], send: Send) -> bool:
    """Send everything; whether the listener took it."""
    while True:
        chunk = b": alive\n\n"
        with anyio.move_on_after(SILENCE):
            try:
                chunk = await take.receive()
            except anyio.EndOfStream:
                return True
        with anyio.move_on_after(PATIENCE) as waiting:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if waiting.cancelled_caught:
            return False


async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def as_event(name: str, data: dict[str, Any]) -> bytes:
    """One event as it is sent: JSON has no line breaks of its own, so a line is enough."""
    return f"event: {name}\ndata: {json.dumps(data, allow_nan=False)}\n\n".encode()
