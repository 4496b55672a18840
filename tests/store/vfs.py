"""A file system for SQLite that does something at the n-th change of a file.

It stands between SQLite and the real one and counts opens, writes, syncs, truncations and
deletions: everything through which a database reaches the disk.
"""

import os
from collections.abc import Callable
from typing import Any, Literal

import apsw

Moment = Literal["before", "torn", "after"]
Act = Callable[[], Any]
EXIT = 77
"""The exit code of a process that was stopped at its point."""


class Countdown:
    """Notes the events of a process and ends it at one of them; at none if `point` is 0."""

    def __init__(self, point: int, moment: Moment) -> None:
        self.seen: list[str] = []
        self._point = point
        self._moment = moment

    def __call__(self, act: Act, half: Act | None = None) -> Any:
        self.seen.append("other" if half is None else "write")
        if len(self.seen) != self._point:
            return act()
        if self._moment != "before":
            (half if self._moment == "torn" and half else act)()
        os._exit(EXIT)


def carry_out(act: Act, half: Act | None = None) -> Any:
    """Lets everything happen."""
    return act()


class FullDisk:
    """Lets so many events pass and then finds the disk full, until it is given room."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.refused = 0

    def __call__(self, act: Act, half: Act | None = None) -> Any:
        if self.room <= 0:
            self.refused += 1
            raise apsw.FullError("the test's disk is full")
        self.room -= 1
        return act()


class WatchedVFS(apsw.VFS):
    """Hands every change of a file to `event`, which carries it out or does not.

    A write comes with a second action that writes the first half only. A sync counts and does
    nothing: what a process has written survives its end, and only that is tested here.
    """

    def __init__(self, event: Callable[..., Any]) -> None:
        self.event = event
        super().__init__("watched", "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> "WatchedFile":  # noqa: N802
        if not flags[0] & apsw.SQLITE_OPEN_CREATE:
            return WatchedFile(self, name, flags)
        opened: WatchedFile = self.event(lambda: WatchedFile(self, name, flags))
        return opened

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        self.event(lambda: super(WatchedVFS, self).xDelete(filename, syncdir))


class WatchedFile(apsw.VFSFile):
    def __init__(self, vfs: WatchedVFS, name: Any, flags: list[int]) -> None:
        self._vfs = vfs
        super().__init__("unix", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        write = super().xWrite
        half = data[: len(data) // 2]
        self._vfs.event(lambda: write(data, offset), lambda: write(half, offset))

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._vfs.event(lambda: None)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        truncate = super().xTruncate
        self._vfs.event(lambda: truncate(newsize))
