"""The door: who may come in is decided from the first lines of a request, before its body is read.

In this order: is there such a route, is the host this one, whose key is it, may it do that, how
many requests did it send, is there room. Then the body is let through, counted and timed. Pure
ASGI, so that a refusal costs microseconds and holds no memory. Knows nothing of what routes do.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from consilience.errors import ConsilienceError, MissingError
from consilience.serving.access import require
from consilience.serving.config import is_loopback
from consilience.serving.errors import ForbiddenError, MethodError, SlowError, TooLargeError
from consilience.serving.failing import RefusedBodyError, failure
from consilience.serving.places import Place, Places
from consilience.serving.service import Service
from consilience.serving.subjects import OWNER, Subject

READING = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing."""

SHORT = 65_536
"""Bytes of a body that are read past."""

PATIENCE = 10.0
"""Seconds that a body may take, whatever its size."""

SLOWEST = 20_000
"""Bytes in a second that a body has to arrive with, beyond that."""


class Door:
    """Middleware that lets in what may come in.

    Args:
        app: What is behind it.
        service: Whose keys, gates and limits hold.
        places: Its routes.
    """

    def __init__(self, app: ASGIApp, *, service: Service, places: Places) -> None:
        self._app = app
        self._service = service
        self._places = places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request in, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            with self._admitted(request) as limit:
                await self._app(scope, Body(receive, limit), send)
        except ConsilienceError as error:
            await failure(request, error, headers=_unread(request))(scope, receive, send)

    @contextmanager
    def _admitted(self, request: Request) -> Iterator[int]:
        """Keeps a place while the request is inside; yields how large its body may be."""
        place = self._place(request)
        subject = self._subject(request)
        request.scope["consilience.subject"] = subject
        if place is None:
            yield 0
            return
        if place.action is not None:
            self._service.gates.count(require(subject, place.action).id)
        leave = self._service.gates.enter(place.kind)
        try:
            yield self._checked_length(request, place)
        finally:
            leave()

    def _place(self, request: Request) -> Place | None:
        """The route; None for the page and what belongs to it, which everyone may read."""
        path, method = request.scope["path"], request.method
        places = self._places.at(path)
        if method in places:
            request.scope["consilience.route"] = places[method].path
            return places[method]
        if places:
            raise MethodError(method, places)
        if path.startswith("/v1/"):
            raise MissingError(
                "there is nothing at this address", hint="GET /openapi.json lists all"
            )
        if method not in ("GET", "HEAD"):
            raise MethodError(method, ("GET", "HEAD"))
        request.scope["consilience.route"] = "page"
        return None

    def _subject(self, request: Request) -> Subject | None:
        """Who asks; None without a valid key."""
        keys = self._service.keys
        if self._service.config.loopback and not keys.in_force:
            _require_here(request)
            return OWNER
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        return keys.find(secret.strip()) if scheme.lower() == "bearer" else None

    def _checked_length(self, request: Request, place: Place) -> int:
        limits = self._service.config.limits
        most = limits.longest_upload if place.kind == "uploads" else limits.longest_body
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            raise _too_large(most)
        return most


def _require_here(request: Request) -> None:
    """Without keys only this machine may ask, and no page of another site in its name.

    A name that somebody else's DNS points at this machine is not one of ours, and a page that was
    not served from here may not change anything.

    Raises:
        ForbiddenError: The host or the origin is another.
    """
    host = request.headers.get("host", "")
    name = _name_of(host)
    if len(name) > _LONGEST_NAME or not is_loopback(name):
        raise ForbiddenError(
            "this server answers to localhost only", hint="consilience keys create NAME"
        )
    origin = request.headers.get("origin")
    ours = origin is None or origin in (f"http://{host}", f"https://{host}")
    if request.method not in READING and not ours:
        raise ForbiddenError(
            "a page of another site may not change anything here",
            hint="open the page that this server has",
        )


_LONGEST_NAME = 64
"""Characters of a host that may be this machine."""


def _name_of(host: str) -> str:
    """A `Host` header without its port."""
    if host.startswith("["):
        return host.partition("]")[0].lstrip("[")
    return host.partition(":")[0]


def _unread(request: Request) -> dict[str, str]:
    """A body that nobody wants comes in all the same before the next request on its connection.

    A short one may: to hang up and be called again costs both sides more than to read past it.
    """
    length = request.headers.get("content-length", "0")
    short = length.isdecimal() and int(length) <= SHORT
    return {} if short and "transfer-encoding" not in request.headers else {"Connection": "close"}


def _too_large(most: int) -> TooLargeError:
    return TooLargeError(
        f"the body is larger than {most} bytes", hint="send less at a time, or raise the limit"
    )


class Body:
    """The body of a request on its way in, counted and timed.

    Args:
        receive: Where it comes from.
        most: How many bytes it may have.
    """

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive = receive
        self._most = most
        self._length = 0
        self._begun = 0.0
        self._whole = False

    async def __call__(self) -> Message:
        """The next part.

        Raises:
            RefusedBodyError: It is too large, or takes too long.
        """
        if self._whole:
            return await self._receive()
        message = await self._next()
        self._length += len(message.get("body", b""))
        if self._length > self._most:
            raise RefusedBodyError(_too_large(self._most))
        self._whole = not message.get("more_body", False)
        return message

    async def _next(self) -> Message:
        self._begun = self._begun or time.monotonic()
        allowed = PATIENCE + self._length / SLOWEST
        try:
            async with asyncio.timeout(self._begun + allowed - time.monotonic()):
                return await self._receive()
        except TimeoutError:
            raise RefusedBodyError(
                SlowError(
                    f"the body had not arrived after {allowed:.0f} s; {self._length} bytes had",
                    hint="send it faster, or in smaller parts",
                )
            ) from None
