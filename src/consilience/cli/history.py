"""A conversation kept in a file: JSON Lines, one `{"question": …, "answer": …}` per turn.

The file is only ever appended to, by one write of one line under a lock, so that neither an
interruption nor a second conversation loses a turn. What cannot be read is left as it is.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from consilience.errors import ConsilienceError, DamagedError, UsageError


@dataclass(frozen=True, slots=True)
class Line:
    """One turn as the file has it."""

    question: str
    answer: str


def read_history(path: Path) -> list[Line]:
    """All turns, the oldest first; none when there is no file yet.

    The file is made when it is missing, so that a place where nothing can be written is told
    before a question is asked rather than after it was answered.

    Raises:
        DamagedError: A line is not a turn; the file is not touched.
        UsageError: The file cannot be opened.
    """
    with _opened(path) as descriptor, open(descriptor, "rb", closefd=False) as file:
        lines = file.read().split(b"\n")
    return [_turn(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]


def append_turn(path: Path, line: Line) -> None:
    """Add a turn at the end, whole or not at all.

    Raises:
        UsageError: The file cannot be opened.
        ConsilienceError: The disk is full or failed; the file is as before.
    """
    written = json.dumps({"question": line.question, "answer": line.answer}, ensure_ascii=False)
    with _opened(path) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        size = os.fstat(descriptor).st_size
        before = b"" if _ends_line(descriptor, size) else b"\n"
        try:
            _write(descriptor, before + written.encode() + b"\n")
        except OSError as error:
            os.ftruncate(descriptor, size)
            raise ConsilienceError(
                f"the history {path} could not be written: {error.strerror}",
                hint="make room; the file is as it was before this question",
            ) from error


def _write(descriptor: int, line: bytes) -> None:
    if os.write(descriptor, line) < len(line):
        raise OSError(None, "the disk is full")
    os.fsync(descriptor)


def _ends_line(descriptor: int, size: int) -> bool:
    """Whether a new line can begin at the end; not so after a file written by hand."""
    return size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The file, open for reading and appending; readable by its owner alone when it is made."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(
            f"the history {path} cannot be opened: {error.strerror}",
            hint="name a file in a folder that exists: --history talk.jsonl",
        ) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _turn(path: Path, number: int, line: bytes) -> Line:
    try:
        found = json.loads(line)
        turn = Line(found["question"], found["answer"])
        # Half a surrogate pair passes through JSON, and through nothing after it.
        (turn.question + turn.answer).encode()
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise _damaged(path, number) from error
    return turn


def _damaged(path: Path, number: int) -> DamagedError:
    return DamagedError(
        f'line {number} of the history {path} is not {{"question": "…", "answer": "…"}}',
        hint=f"correct or delete line {number}, or name another file; nothing was changed",
    )
