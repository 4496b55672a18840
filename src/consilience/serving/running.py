"""Running the server: listening, saying when it is ready, and stopping gracefully.

The first signal closes the gates: who comes anew is told to come back later, answers that are being
written finish or reach the end of their grace, and jobs are left where a new start resumes them. A
second signal stops at once. Knows uvicorn, and no routes.
"""

import logging
import socket
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

from consilience.errors import UsageError
from consilience.serving.app import create_app
from consilience.serving.config import ServeConfig
from consilience.serving.journal import LOG, write_line
from consilience.serving.service import Service

LAST_SECONDS = 5
"""Seconds that watchers and jobs have once nobody waits for an answer any more."""


def listen(config: ServeConfig) -> socket.socket:
    """A socket at the address of a config.

    Raises:
        UsageError: It is taken, not this machine's, or not allowed.
    """
    try:
        found = socket.getaddrinfo(config.host.strip("[]"), config.port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise UsageError(
            f"cannot listen at {config.host}:{config.port}: {error.strerror}",
            hint="take another port: consilience serve --port 0 takes any that is free",
        ) from error
    return listener


def address_of(config: ServeConfig, listener: socket.socket) -> str:
    """Where the page is, for people."""
    host = config.host.strip("[]")
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{listener.getsockname()[1]}"


def run(service: Service, listener: socket.socket, *, ready: Callable[[], None]) -> None:
    """Answer requests until a signal says to stop, then close the service.

    Args:
        service: What is served; it is closed at the end.
        listener: Where.
        ready: Told once, when requests are answered.
    """
    logging.getLogger("uvicorn.error").addHandler(_Lines())
    settings = uvicorn.Config(
        create_app(service),
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        timeout_keep_alive=20,
        timeout_graceful_shutdown=LAST_SECONDS,
    )
    server = Server(settings, service, ready)
    try:
        service.warm_up()
        server.run(sockets=[listener])
    finally:
        service.close(0 if server.force_exit else LAST_SECONDS)
        LOG.flush()


class Server(uvicorn.Server):
    """A server that waits for answers before it stops.

    Args:
        config: Of uvicorn.
        service: Whose gates are closed.
        ready: Told once, when requests are answered.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
        ready: Callable[[], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(config)
        self._service = service
        self._ready = ready
        self._clock = clock
        self._until: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and say so."""
        await super().startup(sockets)
        self._ready()

    def handle_exit(self, sig: int, _: FrameType | None) -> None:
        """Stop: at the first signal gracefully, at the second at once."""
        if self._until is not None:
            self.should_exit = self.force_exit = True
            return
        self._service.gates.close()
        self._until = self._clock() + self._service.config.grace
        write_line({"event": "stopping", "signal": sig})

    async def on_tick(self, counter: int) -> bool:
        """Whether it is time to end."""
        if self._until is not None:
            waiting = self._service.gates.answering and self._clock() < self._until
            self.should_exit = self.should_exit or not waiting
        return await super().on_tick(counter)


class _Lines(logging.Handler):
    """What uvicorn complains of as lines of our log; of exceptions the kind alone."""

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0] if record.exc_info else None
        found = {"event": "server", "level": record.levelname.lower(), "message": record.msg}
        write_line(found | ({"kind": kind.__name__} if kind else {}))
