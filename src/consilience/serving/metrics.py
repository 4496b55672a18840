"""What a server counts, for Prometheus: numbers by route and kind, never by question or key.

Every server has a registry of its own, so that several may live in one process.
"""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Bounds of the buckets of durations."""


class Metrics:
    """The numbers of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "consilience_requests",
            "Requests that were answered.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "consilience_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )

    def answered(self, route: str, method: str, *, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            route: As it is stated, not as it was called.
            method: Of HTTP.
            status: Of the answer.
            seconds: How long it took.
        """
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def watch(self, name: str, help_: str, value: Callable[[], float]) -> None:
        """Tell a number that is looked up whenever somebody asks.

        Args:
            name: Without the prefix `consilience_`.
            help_: One sentence.
            value: Looks it up; must not block for long.
        """
        gauge = Gauge(f"consilience_{name}", help_, registry=self.registry)
        gauge.set_function(value)

    def text(self) -> bytes:
        """All numbers in the format of Prometheus."""
        return bytes(generate_latest(self.registry))
