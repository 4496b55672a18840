"""The coordinator's end of the socket to the relay that Flower runs.

One relay at a time: the newest counts, since Flower may start another while an old one is dying.
What is sent goes through a queue and a thread of its own; reading and sending never wait for each
other, so that two large bodies that cross do not stop both ends.
"""

import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread

from consilience.federation import places
from consilience.federation.flower.app.relay.frames import Head, receive, send

_GREETING = 10.0  # seconds

Frame = tuple[Head, bytes]


class Line:
    """The way to one relay."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._out: SimpleQueue[Frame | None] = SimpleQueue()
        Thread(target=self._write, name="to the relay", daemon=True).start()

    def send(self, head: Head, body: bytes = b"") -> None:
        """Send when those before it are sent."""
        self._out.put((head, body))

    def read(self) -> Frame | None:
        """The next frame from the relay; None when it has gone."""
        try:
            return receive(self._connection)
        except OSError:
            return None

    def close(self) -> None:
        """Hang up."""
        self._out.put(None)
        places.deaf(self._connection)

    def _write(self) -> None:
        while (frame := self._out.get()) is not None:
            try:
                send(self._connection, *frame)
            except OSError:  # whoever reads notices
                return


class Desk:
    """Where relays come to.

    Args:
        came: Told of a new line; one that was there before is closed.
        said: Told of every frame.
        went: Told of a line that ended.
    """

    def __init__(
        self,
        came: Callable[[Line], None],
        said: Callable[[Head, bytes], None],
        went: Callable[[Line], None],
    ) -> None:
        self._came, self._said, self._went = came, said, went
        self._folder = places.short_folder()
        self._listener, self._secret = places.listen(self.address)
        self._line: Line | None = None
        self._lock = Lock()
        Thread(target=self._accept, name="desk", daemon=True).start()

    @property
    def address(self) -> Path:
        """Where relays find it."""
        return self._folder / "desk.sock"

    def close(self) -> None:
        """Hang up and listen no more."""
        places.deaf(self._listener)
        if self._line is not None:
            self._line.close()
        places.gone(self._folder)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # it was closed
                return
            Thread(target=self._greet, args=(connection,), name="relay", daemon=True).start()

    def _greet(self, connection: socket.socket) -> None:
        connection.settimeout(_GREETING)
        try:
            hello = receive(connection, 0)
        except OSError:
            hello = None
        if hello is None or not secrets.compare_digest(
            str(hello[0].get("secret", "")), self._secret
        ):
            connection.close()
            return
        connection.settimeout(None)
        self._hear(Line(connection))

    def _hear(self, line: Line) -> None:
        with self._lock:
            before, self._line = self._line, line
        if before is not None:
            before.close()
        self._came(line)
        while (frame := line.read()) is not None:
            self._said(*frame)
        line.close()
        self._went(line)
