"""Training runs on disk as they are watched: which there are, their curves, and what is new.

Reads the log that a run writes line by line while it is being written: a last line that is not
whole yet is left for later, and a log that is written anew, as by a run that goes on from an
earlier step, is told anew. The name of a run is looked up among the folders that are there and
never becomes a path. Knows nothing of how training is done.
"""

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from consilience.errors import MissingError

LOG, CONFIG, MODEL = "log.jsonl", "config.json", "model"

QUIET = 600.0
"""Seconds without a line after which a run that is not over counts as stopped."""

MOST_POINTS = 5000
"""Points of a curve; of more, every second, third and so on is told, and always the last."""

_LONGEST_LINE = 100_000  # bytes; a line of metrics has a few hundred
_CHUNK = 1_000_000  # bytes that are read at a time
_TAIL = 64  # bytes before a place in a log by which it is known again

State = Literal["running", "done", "stopped"]
Point = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A run as it is listed.

    Attributes:
        name: Of its folder.
        steps: The last step that was logged.
        total: Steps in all, where the settings say so.
        state: Whether it goes on.
        objective: What is learned, the names joined by `+`.
        started: When its settings were written, in UTC.
    """

    name: str
    steps: int
    total: int | None
    state: State
    objective: str
    started: str

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class News:
    """What a log has that was not told yet.

    Attributes:
        points: New points.
        anew: Whether the log was written anew, as when a run goes on from an earlier step; then
            all points that were told before are void, and these are all there are.
    """

    points: tuple[Point, ...] = ()
    anew: bool = False


class Log:
    """A log that is followed while it grows.

    Args:
        path: The file; it may come later.
        after: Only points of later steps are told.
    """

    def __init__(self, path: Path, *, after: int = -1) -> None:
        self._path, self._after = path, after
        self._offset = 0
        self._tail = b""

    def news(self) -> News:
        """What has come since it was last asked."""
        try:
            with self._path.open("rb") as file:
                anew = not self._is_same(file.fileno())
                if anew:
                    self._offset, self._tail, self._after = 0, b"", -1
                points = tuple(self._new(file.fileno()))
        except OSError:
            return News()  # not there yet, or not any more
        return News(tuple(one for one in points if one["step"] > self._after), anew)

    def _is_same(self, descriptor: int) -> bool:
        """Whether what was read of it still stands there."""
        if os.fstat(descriptor).st_size < self._offset:
            return False
        return os.pread(descriptor, len(self._tail), self._offset - len(self._tail)) == self._tail

    def _new(self, descriptor: int) -> Iterator[Point]:
        rest = b""
        while data := os.pread(descriptor, _CHUNK, self._offset + len(rest)):
            whole = (rest + data).rfind(b"\n") + 1
            lines, rest = (rest + data)[:whole], (rest + data)[whole:]
            self._offset += whole
            self._tail = (self._tail + lines)[-_TAIL:]
            for line in lines.splitlines():
                if (point := point_of(line)) is not None:
                    yield point
            if len(rest) > _LONGEST_LINE:
                return


def point_of(line: bytes) -> Point | None:
    """A line of a log as a point: its step and its numbers; None if it is none.

    What is no finite number, which JSON cannot hold, is None.
    """
    try:
        found = json.loads(line)
        step = int(found["step"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    numbers = {
        str(name): value if math.isfinite(value) else None
        for name, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return {**numbers, "step": step}


def all_runs(folder: Path) -> list[RunInfo]:
    """Every run in a folder, the newest first."""
    found = [_info(folder / name, name) for name in _names(folder)]
    return sorted(found, key=lambda one: (one.started, one.name), reverse=True)


def run_info(folder: Path, name: str) -> RunInfo:
    """One run.

    Raises:
        MissingError: There is none of that name.
    """
    return _info(_place(folder, name), name)


def points_of(folder: Path, name: str) -> list[Point]:
    """The curve of a run.

    Raises:
        MissingError: There is none of that name.
    """
    points = list(Log(_place(folder, name) / LOG).news().points)
    stride = -(-len(points) // MOST_POINTS) or 1
    return [p for i, p in enumerate(points) if (len(points) - 1 - i) % stride == 0]


def log_of(folder: Path, name: str, *, after: int) -> Log:
    """The log of a run, to be followed.

    Raises:
        MissingError: There is none of that name.
    """
    return Log(_place(folder, name) / LOG, after=after)


def _names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [one.name for one in entries if _is_run(one)]
    except OSError:
        return []


def _is_run(entry: "os.DirEntry[str]") -> bool:
    place = Path(entry.path)
    return (
        entry.is_dir(follow_symlinks=False)
        and entry.name.isprintable()
        and any((place / file).is_file() for file in (LOG, CONFIG))
    )


def _place(folder: Path, name: str) -> Path:
    if name not in _names(folder):
        raise MissingError("there is no such run", hint="GET /v1/runs lists them")
    return folder / name


def _info(place: Path, name: str) -> RunInfo:
    config = _config(place / CONFIG)
    steps, total = _last_step(place / LOG), config.get("steps")
    objectives = config.get("objectives")
    return RunInfo(
        name=name,
        steps=steps,
        total=total if isinstance(total, int) else None,
        state=_state(place),
        objective="+".join(map(str, objectives)) if isinstance(objectives, dict | list) else "",
        started=_time_of(place),
    )


def _config(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _last_step(path: Path) -> int:
    """The step of the last whole line, out of the end of the file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LONGEST_LINE))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return 0
    points = (point_of(line) for line in reversed(lines))
    return next((point["step"] for point in points if point is not None), 0)


def _state(place: Path) -> State:
    """The model is written last; a log that says nothing for long belongs to a run that ended."""
    log, model = _changed(place / LOG), _changed(place / MODEL)
    if model and model >= log:
        return "done"
    return "running" if time.time() - max(log, _changed(place / CONFIG)) < QUIET else "stopped"


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _time_of(place: Path) -> str:
    when = _changed(place / CONFIG) or _changed(place)
    found = datetime.fromtimestamp(when, UTC).isoformat(timespec="seconds")
    return found.replace("+00:00", "Z")
