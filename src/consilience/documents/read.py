"""From the path of one file to its documents: the checks that need no parser, then the sandbox."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import BinaryIO

from consilience.documents.document import Document
from consilience.documents.formats import format_of_name
from consilience.documents.limits import DEFAULT_LIMITS, ReadLimits, megabytes
from consilience.documents.sandbox import SHARED, Request
from consilience.errors import DocumentError

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def read_document(
    path: Path, *, source: str, name: str = "", limits: ReadLimits = DEFAULT_LIMITS
) -> list[Document]:
    """The documents that one file holds, read in a confined child process.

    Files of records (.json, .jsonl) may hold several; every other file holds exactly one.

    Args:
        path: The file.
        source: The name that citations will carry, usually the path as the user gave it.
        name: The name that says the format and, at worst, the title, where the file is kept under
            another; empty for the file's own.
        limits: How much the file may cost.

    Returns:
        At least one document, each with visible text.

    Raises:
        DocumentError: The reason, on one line, why the file cannot be read; the path stands in a
            note of the exception and not in its message.
    """
    try:
        named = PurePath(name or path.name)
        suffix = named.suffix.lower()
        format_of_name(suffix)
        _refuse_odd_name(source + named.name)
        with opened(path, limits) as (file, size):
            request = Request(file=file, size=size, source=source, stem=named.stem, suffix=suffix)
            return SHARED.read(request, limits)
    except DocumentError as error:
        error.add_note(f"while reading {path}")
        raise


def _refuse_odd_name(name: str) -> None:
    """Refuse a name whose bytes are no text in the encoding of the file system."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DocumentError("its name is not valid text", hint="rename it") from error


def kind_of_file(mode: int) -> str:
    """What a path leads to if not to a regular file, in words; empty if it does."""
    if stat.S_ISREG(mode):
        return ""
    return next((words for test, words in _KINDS if test(mode)), "a special file")


def why_not(error: OSError) -> str:
    """The reason of a failed file operation, without the path."""
    return (error.strerror or str(error)).lower()


@contextmanager
def opened(path: Path, limits: ReadLimits) -> Iterator[tuple[BinaryIO, int]]:
    """The file, open for reading, and its size; opening never waits, as on a named pipe.

    Raises:
        DocumentError: It cannot be opened, is no regular file, empty, or larger than allowed.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise _not_opened(why_not(error)) from error
    except ValueError as error:
        raise _not_opened(str(error)) from error
    try:
        size = _checked_size(os.fstat(descriptor), limits)
        with os.fdopen(descriptor, "rb", buffering=0, closefd=False) as file:
            yield file, size
    finally:
        os.close(descriptor)


def _not_opened(why: str) -> DocumentError:
    return DocumentError(f"cannot be opened: {why}", hint="check the path and its permissions")


def _checked_size(status: os.stat_result, limits: ReadLimits) -> int:
    """The size of an open file, told by the open file itself, which nobody can swap.

    Raises:
        DocumentError: Not a regular file, empty, or larger than allowed.
    """
    kind = kind_of_file(status.st_mode)
    if kind:
        raise DocumentError(f"is {kind}, not a file", hint="name a file or a folder")
    if status.st_size == 0:
        raise DocumentError("holds no text: the file is empty (0 bytes)")
    if status.st_size > limits.file_bytes:
        raise DocumentError(
            f"too large: {megabytes(status.st_size)}, allowed are {megabytes(limits.file_bytes)}",
            hint="split the file into smaller ones",
        )
    return status.st_size
