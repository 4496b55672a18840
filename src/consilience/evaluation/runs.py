"""A run on disk: JSON Lines, first what was run, then one record a question as it is answered.

A run that stopped goes on where it stopped, if everything that its answers depend on is the same; a
line that was cut off by the end of a process is dropped. Knows nothing of how questions are
answered.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from consilience.errors import DamagedError, MissingError, UsageError, VersionError
from consilience.evaluation.records import Record

FORMAT = 1

Setup = Mapping[str, Any]
"""What answers depend on, as JSON: the data, the model, the store, the options."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a run file holds.

    Attributes:
        setup: What was run.
        records: Of the questions that were answered, in their order.
    """

    setup: Setup
    records: tuple[Record, ...]


class RunFile:
    """A run that is being written.

    Args:
        path: The file.
        setup: What is being run.

    Raises:
        UsageError: The file holds a run of something else, or there is no such folder.
        DamagedError: The file is no run.
        VersionError: A newer version wrote it.
    """

    def __init__(self, path: Path, setup: Setup) -> None:
        self.done: tuple[Record, ...] = ()
        if path.exists() and path.stat().st_size:
            self.done = _continued(path, setup)
        elif not path.parent.is_dir():
            raise UsageError(
                f"there is no folder {path.parent} for the run", hint=f"mkdir -p {path.parent}"
            )
        self._file = path.open("a", encoding="utf-8", newline="\n")
        if not self._file.tell():
            _write_line(self._file, {"consilience_run": FORMAT, **setup})

    def append(self, record: Record) -> None:
        """Add a record; it is in the file when this returns."""
        _write_line(self._file, record.to_dict())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_run(path: str | Path) -> Run:
    """The run of a file, complete or not.

    Raises:
        MissingError: There is no such file.
        DamagedError: It is no run, or a line of it is damaged.
        VersionError: A newer version wrote it.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingError(
            f"there is no run at {path}", hint=f"consilience evaluate DATA --out {path}"
        )
    return _parsed(path, _whole_lines(path.read_bytes()))


def _continued(path: Path, setup: Setup) -> tuple[Record, ...]:
    """The records of a run that may go on; a line that was cut off is cut away."""
    data = path.read_bytes()
    run = _parsed(path, _whole_lines(data))
    _require_same(path, run.setup, setup)
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)
    return run.records


def _require_same(path: Path, old: Setup, new: Setup) -> None:
    wanted = json.loads(json.dumps(new))
    other = [name for name in wanted if old.get(name) != wanted[name]]
    if other:
        details = "; ".join(f"{n} was {_short(old.get(n))}, now {_short(wanted[n])}" for n in other)
        raise UsageError(
            f"{path} is a run of something else: {details}",
            hint="name another file with --out, or remove this one to begin anew",
        )


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:120]}…"


def _whole_lines(data: bytes) -> list[bytes]:
    """The lines that were written to their end."""
    return data.split(b"\n")[:-1]


def _parsed(path: Path, lines: Sequence[bytes]) -> Run:
    setup = dict(_json(path, 1, lines[0] if lines else b""))
    version = setup.pop("consilience_run", None)
    if not isinstance(version, int):
        raise _damaged(path, 1, "no run begins like this")
    if version > FORMAT:
        raise VersionError(
            f"{path} was written by a newer version, received format {version}",
            hint="pip install --upgrade consilience",
        )
    return Run(setup, tuple(_record(path, n, line) for n, line in enumerate(lines[1:], start=2)))


def _record(path: Path, number: int, line: bytes) -> Record:
    try:
        return Record.from_dict(_json(path, number, line))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, number, f"{type(error).__name__} {error}") from error


def _json(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, number, "not JSON") from error
    if not isinstance(value, dict):
        raise _damaged(path, number, "not an object")
    return value


def _damaged(path: Path, number: int, why: str) -> DamagedError:
    return DamagedError(
        f"{path} line {number} is not of a run: {why}",
        hint="name a file that `consilience evaluate --out` wrote; remove a damaged one",
    )


def _write_line(file: TextIO, value: Mapping[str, Any]) -> None:
    # ASCII, so that half a character of a question is written like any other
    file.write(json.dumps(value, allow_nan=False) + "\n")
    file.flush()
