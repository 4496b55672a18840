"""The log: one line of JSON on standard error for each request, and what each answer carries.

A line has the route as it is stated and not as it was called, and never a question, a document or a
key. Every answer carries the number of its request, and headers that keep a browser from doing what
the page never asks for.
"""

import itertools
import re
import secrets
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from consilience.errors import ConsilienceError
from consilience.serving.errors import OF_THE_SERVER, internal_error
from consilience.serving.failing import failure
from consilience.serving.log import Log
from consilience.serving.metrics import Metrics
from consilience.serving.subjects import Subject

HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": (
            "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; "
            "script-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; "
            "form-action 'self'"
        ),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "X-Frame-Options": "DENY",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
)
"""What every answer carries, unless its route says otherwise."""

_RAW = tuple((name.lower().encode(), value.encode()) for name, value in HEADERS.items())

_REQUEST_ID = re.compile(r"[A-Za-z0-9-]{1,64}")

Write = Callable[[dict[str, Any]], None]
"""Writes one line of the log."""


LOG = Log()
"""Of this process, on standard error."""

write_line: Write = LOG.line
"""Writes to it."""


def where_of(error: Exception) -> dict[str, Any]:
    """The kind of a mistake and the places it came through, without what it says."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename}:{frame.lineno}" for frame in frames]
    return {"kind": type(error).__name__, "places": places[-12:]}


class Journal:
    """The outermost middleware: numbers requests, logs and counts them, and catches mistakes.

    Args:
        app: What is inside.
        metrics: Where they are counted.
        write: Writes a line.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, write: Write = write_line) -> None:
        self._app = app
        self._metrics = metrics
        self._write = write

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and note that."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        visit = _Visit(scope, send)
        try:
            await self._app(scope, receive, visit.send)
        except Exception as error:  # noqa: BLE001 - the edge: what is not foreseen is told as ours
            await self._confess(scope, receive, visit, error)
        finally:
            self._note(scope, visit)

    async def _confess(
        self, scope: Scope, receive: Receive, visit: "_Visit", error: Exception
    ) -> None:
        """Answer a mistake of this package; where it was is logged, what it said is not."""
        self._write(_stamped("mistake", visit, **where_of(error)))
        if not visit.status:
            request = Request(scope)
            await failure(request, internal_error(error))(scope, receive, visit.send)

    def _note(self, scope: Scope, visit: "_Visit") -> None:
        seconds = time.perf_counter() - visit.begun
        route, method = str(scope.get("consilience.route", "none")), str(scope["method"])
        if method not in _METHODS:
            method = "other"
        self._metrics.answered(route, method, status=visit.status, seconds=seconds)
        told = {"method": method, "route": route, "status": visit.status}
        rest = {"ms": round(1000 * seconds, 1), "bytes": visit.length, **_told_of(scope)}
        self._write(_stamped("request", visit, **told, **rest))


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _told_of(scope: Scope) -> dict[str, Any]:
    """Who asked, by the name of the key, and what was wrong."""
    subject, error = scope.get("consilience.subject"), scope.get("consilience.error")
    found: dict[str, Any] = {}
    if isinstance(subject, Subject):
        found["key"] = subject.id or subject.name
    if isinstance(error, ConsilienceError):
        found["kind"] = error.kind
        if error.kind in OF_THE_SERVER:
            found["message"] = error.message
    return found


def _stamped(event: str, visit: "_Visit", **more: Any) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"time": now, "event": event, "request": visit.id, **more}


class _Visit:
    """One request and what became of it.

    Args:
        scope: Of ASGI; gets the number of the request.
        send: Where the answer goes.
    """

    def __init__(self, scope: Scope, send: Send) -> None:
        self.begun = time.perf_counter()
        self.status = 0
        self.length = 0
        self.id = scope["consilience.request_id"] = _id_of(scope)
        self._scope = scope
        self._send = send

    def _of_page(self) -> bool:
        """Whether a browser may keep it, as long as it asks each time whether it is still so."""
        return self._scope.get("consilience.route") == "page" and self.status in (200, 304)

    async def send(self, message: Message) -> None:
        """Pass a part of the answer on, with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*self._headers(message.get("headers", ()))]}
        else:
            self.length += len(message.get("body", b""))
        await self._send(message)

    def _headers(self, own: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        """Those of the route first, which win; names are in lower case, as ASGI has them."""
        kept = b"no-cache" if self._of_page() else b"no-store"
        ours = (*_RAW, (b"cache-control", kept), (b"x-request-id", self.id.encode()))
        held = [one for one in own if one[0] != b"x-request-id"]
        names = {name for name, _ in held}
        yield from held
        yield from (one for one in ours if one[0] not in names)


_PROCESS, _COUNT = secrets.token_hex(4), itertools.count(1)
"""A number needs to be new, not secret, and drawing random ones costs a call of the system each."""


def _id_of(scope: Scope) -> str:
    """The number that the caller gave, when it is one that can stand in a log, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given = value.decode("latin-1")
            if _REQUEST_ID.fullmatch(given):
                return str(given)
    return f"{_PROCESS}{next(_COUNT):08x}"
