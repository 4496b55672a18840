"""The way to a server: a channel of gRPC on which no call waits for ever.

Imports gRPC, so is itself imported with the first call.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from consilience.retrieval.engines.address import Address
from consilience.retrieval.engines.base import Limits

PORT = 19530
"""Where a server listens that was not told otherwise."""

_SLOW = frozenset({"CreateCollection", "CreateIndex", "LoadCollection", "Upsert", "Delete"})
_OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


def channel_to(address: Address, limits: Limits) -> grpc.Channel:
    """A channel to the server at an address; it connects with the first call."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    place = f"{host}:{address.port or PORT}"
    if address.secure:
        channel = grpc.secure_channel(place, _credentials(address), options=_OPTIONS)
    else:
        channel = grpc.insecure_channel(place, options=_OPTIONS)
    return grpc.intercept_channel(channel, _Deadlines(limits))


def _credentials(address: Address) -> Any:
    certificate = address.options.get("ca")
    known = None if certificate is None else Path(certificate).read_bytes()
    return grpc.ssl_channel_credentials(root_certificates=known)


@dataclass(frozen=True, slots=True)
class _Call:
    """What gRPC wants to know of a call."""

    method: str
    timeout: float
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


class _Deadlines(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    """Gives every call that has no deadline the one of its kind.

    Args:
        limits: How long is waited.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Any], details: Any, request: Any
    ) -> Any:
        """Go on with a deadline."""
        slow = details.method.rpartition("/")[2] in _SLOW
        seconds = self._limits.publish if slow else self._limits.search
        call = _Call(
            details.method,
            seconds if details.timeout is None else details.timeout,
            details.metadata,
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )
        return continuation(call, request)
