"""A party's agent: its model stays in this process, requests come over a local socket.

One request at a time, in a thread of its own; the next caller waits. A caller that goes away does
not stop what was begun: the party keeps its answer, and the same request gets it again. Callers
must know the secret that lies beside the socket, in a folder that only the party's user can open.
"""

import secrets
import socket
import traceback
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Self

from consilience.federation import places
from consilience.federation.contracts import Party
from consilience.federation.durable import private_folder
from consilience.federation.flower.app.relay.frames import MOST, Head, receive, send

_SLOW = 60.0  # seconds that a caller may keep still while it sends


class Agent:
    """Serves a party on a socket, from `start` to `close`.

    Args:
        party: Answers.
        folder: Of the socket; None makes one with a short path.
        most: Longest request in bytes.
    """

    def __init__(self, party: Party, folder: Path | None = None, *, most: int = MOST) -> None:
        self._party = party
        self._most = most
        self._own = folder is None
        self._folder = places.short_folder() if folder is None else private_folder(folder)
        self._listener, self._secret = places.listen(self.address)
        self._thread = Thread(target=self._serve, name=f"agent of {party.name}", daemon=True)

    @property
    def address(self) -> Path:
        """Where it listens."""
        return self._folder / "agent.sock"

    def start(self) -> Self:
        """Serve."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Take no more requests; one that is being answered is not waited for."""
        places.deaf(self._listener)
        for path in (self.address, self.address.with_suffix(".secret")):
            path.unlink(missing_ok=True)
        if self._own:
            places.gone(self._folder)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # it was closed
                return
            with connection:
                self._attend(connection)

    def _attend(self, connection: socket.socket) -> None:
        """Answer one caller; it may vanish at any moment."""
        connection.settimeout(_SLOW)
        try:
            frame = receive(connection, self._most)
            if frame is not None:
                head, body = self._answer(*frame)
                send(connection, head, body)
        except OSError:
            return

    def _answer(self, head: Head, request: bytes) -> tuple[Head, bytes]:
        if not secrets.compare_digest(str(head.get("secret", "")), self._secret):
            return {"refused": "a caller that does not know the secret"}, b""
        if head.get("kind") == "who":
            return {"party": self._party.name}, b""
        return self._answered(request)

    def _answered(self, request: bytes) -> tuple[Head, bytes]:
        try:
            return {"party": self._party.name}, self._party.answer(request)
        except Exception as error:  # noqa: BLE001 - the edge: an agent outlives its mistakes
            traceback.print_exc()
            return {"refused": f"{type(error).__name__} while answering"}, b""
