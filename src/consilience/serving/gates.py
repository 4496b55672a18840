"""Admission: how many requests of a kind may be in the building at once, and how many a key sends.

A full gate refuses at once, before anything of the body was read, so that however many ask, memory
and waiting stay bounded. All of this lives on the event loop and needs no locks. Knows no routes
but their names, and no work.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from consilience.serving.config import Limits
from consilience.serving.errors import OverloadedError, RateError

Kind = Literal["open", "asks", "searches", "uploads", "watchers", "others"]
"""Kinds of requests; `open` ones have no gate."""

KINDS: Mapping[tuple[str, str], Kind] = MappingProxyType(
    {
        ("GET", "/v1/health"): "open",
        ("GET", "/metrics"): "open",
        ("DELETE", "/v1/ask/{id}"): "open",
        ("POST", "/v1/ask"): "asks",
        ("POST", "/v1/chat/completions"): "asks",
        ("POST", "/v1/search"): "searches",
        ("POST", "/v1/embeddings"): "searches",
        ("POST", "/v1/documents"): "uploads",
        ("POST", "/v1/evaluations"): "uploads",
        ("GET", "/v1/jobs/events"): "watchers",
        ("GET", "/v1/runs/{name}/events"): "watchers",
    }
)
"""The kind of a request by method and path; of all that are not named here, `others`."""


def kind_of(method: str, path: str) -> Kind:
    """The kind of a request.

    Args:
        method: Of HTTP.
        path: As the route states it.
    """
    return KINDS.get((method, path), "others")


@dataclass(slots=True)
class Gate:
    """Lets in so many at once.

    Attributes:
        room: How many.
        retry_after: Seconds after which a refused one may come back.
        inside: How many there are now.
    """

    room: int
    retry_after: int
    inside: int = 0

    def enter(self, name: str) -> None:
        """Take a place.

        Raises:
            OverloadedError: There is none.
        """
        if self.inside >= self.room:
            raise OverloadedError(
                f"{self.inside} {name} are in work or waiting, and there is room for {self.room}",
                hint=f"try again in {self.retry_after} s",
                retry_after=self.retry_after,
            )
        self.inside += 1

    def leave(self) -> None:
        """Give the place back."""
        self.inside -= 1

    def count(self) -> float:
        """How many there are now."""
        return self.inside


UPLOADS, WATCHERS, OTHERS = 8, 64, 128
"""Room for uploads, for those who watch jobs and runs, and for all other requests."""


class Gates:
    """All gates of a server.

    Args:
        limits: How many of each kind, and the rate of a key.
        clock: Seconds, monotonic.
    """

    def __init__(self, limits: Limits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.closing = False
        self.gates: Mapping[Kind, Gate] = MappingProxyType(
            {
                "asks": Gate(limits.asks + limits.waiting, 2),
                "searches": Gate(limits.searches, 1),
                "uploads": Gate(UPLOADS, 5),
                "watchers": Gate(WATCHERS, 10),
                "others": Gate(OTHERS, 1),
            }
        )
        self._clock = clock
        self._rate = limits.rate
        self._buckets: dict[str, Bucket] = {}

    def enter(self, kind: Kind) -> Callable[[], None]:
        """Take a place; what is returned gives it back.

        Raises:
            OverloadedError: There is no place, or the server is about to stop.
        """
        gate = self.gates.get(kind)
        if gate is None:
            return _nothing
        if self.closing:
            raise OverloadedError(
                "the server is about to stop and takes nothing new",
                hint="try again when it has come back",
                retry_after=10,
            )
        gate.enter(kind)
        return gate.leave

    def count(self, key: str) -> None:
        """Count a request of a key.

        Raises:
            RateError: It sent as many as it may.
        """
        if not self._rate or not key:
            return
        bucket = self._buckets.setdefault(key, Bucket(self._rate, self._clock()))
        wait = bucket.take(self._clock(), self._rate)
        if wait:
            raise RateError(
                f"this key may send {self._rate} requests in a minute",
                hint=f"try again in {wait} s",
                retry_after=wait,
            )

    def resize(self, limits: Limits) -> None:
        """Take up other limits; those inside are not disturbed."""
        self.gates["asks"].room = limits.asks + limits.waiting
        self.gates["searches"].room = limits.searches
        self._rate = limits.rate

    def close(self) -> None:
        """Let nobody in any more; those inside are not disturbed."""
        self.closing = True

    @property
    def answering(self) -> int:
        """How many are inside who came for an answer, and whom a graceful stop waits for."""
        return sum(self.gates[kind].inside for kind in ("asks", "searches", "uploads", "others"))


@dataclass(slots=True)
class Bucket:
    """Tokens that fill up again over a minute; a request takes one.

    Attributes:
        left: How many there are.
        at: When that was counted.
    """

    left: float
    at: float = field(default=0.0)

    def take(self, now: float, a_minute: int) -> int:
        """Take one, or say in how many seconds there will be one."""
        self.left = min(a_minute, self.left + (now - self.at) * a_minute / 60)
        self.at = now
        if self.left >= 1:
            self.left -= 1
            return 0
        return max(1, round((1 - self.left) * 60 / a_minute + 0.5))


def _nothing() -> None:
    return
