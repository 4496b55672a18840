"""Two doors in front of Flower's one service.

Flower answers parties, administrators and its own helper processes on one port, and asks
administrators for nothing. So the service itself is reached only through a door: the public one
lets parties through to what they need, known keys only; the private one, on loopback, lets helpers
through, which show tokens of their own, and administrators that know a secret.
"""

import base64
import binascii
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

FLEET = frozenset(
    f"/v1/fleet/{name}"
    for name in (
        "activate-node",
        "confirm-message-received",
        "deactivate-node",
        "get-fab",
        "get-run",
        "pull-messages",
        "pull-object",
        "push-messages",
        "push-object",
        "send-node-heartbeat",
    )
)
REGISTER = frozenset({"/v1/fleet/register-node", "/v1/fleet/unregister-node"})
HEALTH = "/health"
SECRET = b"x-consilience-secret"

_KEY = b"flwr-public-key"
_MOST = 64 * 1024**2  # bytes of a request; Flower cuts what it carries into pieces of 5 MB

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Door = Callable[[Scope], int]
"""The status that a request is refused with; 0 where it may pass."""


def behind(app: App, door: Door) -> App:
    """The service behind a door."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        status = door(scope) if scope["type"] == "http" else 0
        if scope["type"] == "websocket" or status:
            await _refuse(scope, send, status or 403)
        else:
            await app(scope, receive, send)

    return guarded


def public_door(keys: frozenset[bytes] | None) -> Door:
    """For parties: with one of these keys, in PEM; None, in a demonstration, for any."""

    def door(scope: Scope) -> int:
        path, headers = scope["path"], dict(scope["headers"])
        if path == HEALTH:
            return 0 if scope["method"] in ("GET", "HEAD") else 403
        if path not in FLEET and not (keys is None and path in REGISTER):
            return 403
        if keys is not None and _shown(headers) not in keys:
            return 404  # told 401 or 403 a node would not end, or not say why
        return _too_long(headers)

    return door


def private_door(secret: str) -> Door:
    """For helper processes, and for whoever knows the secret."""

    def door(scope: Scope) -> int:
        path, headers = scope["path"], dict(scope["headers"])
        if path == HEALTH or path.startswith("/v1/runtime/"):
            return 0
        told = headers.get(SECRET, b"")
        known = hmac.compare_digest(told, secret.encode("ascii"))
        return 0 if path.startswith("/v1/control/") and known else 403

    return door


def _shown(headers: dict[bytes, bytes]) -> bytes:
    """The public key that a caller shows; whether it has the other half Flower finds out."""
    try:
        return base64.b64decode(headers.get(_KEY, b""), validate=True)
    except binascii.Error:
        return b""


def _too_long(headers: dict[bytes, bytes]) -> int:
    """A request says its length beforehand, and it is one that Flower would send."""
    length = headers.get(b"content-length", b"")
    if not length.isdigit():
        return 411
    return 413 if int(length) > _MOST else 0


async def _refuse(scope: Scope, send: Send, status: int) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-length", b"0"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
