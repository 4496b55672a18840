"""Lines of the log are written beside the event loop: who reads them slowly holds nobody up.

Lines wait in memory, and a thread writes those that have come together within `TOGETHER` seconds,
in their order. When whoever reads the log stands still, `ROOM` lines wait and further ones are
dropped; the log says how many as soon as it moves again. SIGKILL loses what waits, `flush` and the
end of the process do not. Knows JSON and standard error, and nothing of what lines say.
"""

import atexit
import json
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

TOGETHER = 0.05
"""Seconds for which lines gather."""

ROOM = 10_000
"""Lines that may wait."""


def to_stderr(text: str) -> None:
    """Write on standard error, whatever that is by now."""
    sys.stderr.write(text)
    sys.stderr.flush()


class Log:
    """A log of JSON lines; any thread may write to it, and none of them waits.

    Args:
        write: Takes whole lines; may block.
        together: Seconds for which lines gather.
        room: Lines that may wait.
    """

    def __init__(
        self,
        write: Callable[[str], None] = to_stderr,
        *,
        together: float = TOGETHER,
        room: int = ROOM,
    ) -> None:
        self._write, self._together, self._room = write, together, room
        self._waiting: deque[dict[str, Any]] = deque()
        self._dropped = 0
        self._called = threading.Event()
        self._thread: threading.Thread | None = None
        self._writing, self._beginning = threading.Lock(), threading.Lock()

    def line(self, found: dict[str, Any]) -> None:
        """Take one line."""
        if len(self._waiting) >= self._room:
            self._dropped += 1
            return
        self._waiting.append(found)
        if not self._called.is_set():
            self._called.set()
            self._begin()

    def flush(self, patience: float = 1.0) -> None:
        """Write everything that waits.

        Args:
            patience: Seconds to wait for a writing that is under way.
        """
        if not self._writing.acquire(timeout=patience):
            return
        try:
            text = "".join(f"{json.dumps(one)}\n" for one in self._taken())
            if text:
                self._write(text)
        except (OSError, ValueError):  # whoever read the log is gone, and there is nobody to tell
            return
        finally:
            self._writing.release()

    def _taken(self) -> Iterator[dict[str, Any]]:
        for _ in range(len(self._waiting)):
            yield self._waiting.popleft()
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            yield {"event": "dropped", "lines": dropped}

    def _begin(self) -> None:
        """The thread begins with the first line, so that nothing runs where nothing is logged."""
        with self._beginning:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()
                atexit.register(self.flush)

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            self._called.wait()
            pause.wait(self._together)
            self._called.clear()
            self.flush()
