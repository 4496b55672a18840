"""The reading child: confines itself, then reads one file after another off its standard input.

It gets the bytes of a file, never a path, and answers with documents, with a view of one page, or
with a reason. It imports the parsing library of a format when the first file of that format comes,
and nothing of the model.
`sandbox` starts it; nothing else should.
"""

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO

from consilience.documents.confinement import confine, grant_cpu, peak_memory
from consilience.documents.normalise import one_line, storable
from consilience.documents.readers.base import RawFile
from consilience.documents.readers.table import READERS
from consilience.documents.recognition import recognise
from consilience.documents.wire import (
    NO_MEMORY,
    Message,
    WireError,
    pack_document,
    pack_error,
    read_exactly,
    read_frames,
    write_frame,
)
from consilience.errors import DocumentError

FILES_PER_CHILD = 500
"""After so many files a child retires, whatever it looks like."""

_LONGEST_LIFE = FILES_PER_CHILD * 64 * 1024  # bytes of headers; one is less than a kilobyte
_SPENT = 0.5  # of its memory; a child that once held more retires, as what it kept is unknown
_EXHAUSTED = 0.75  # of its memory; a parser that fails above it failed for want of memory


def main(memory_bytes: int) -> None:
    """Serve until the parent closes the pipe or this child is spent.

    Leaves with the exit code `NO_MEMORY` when a file needed more memory than there is.
    """
    requests, replies = _private_pipes()
    confine(memory_bytes)
    try:
        _serve(requests, replies, memory_bytes)
    except WireError:
        return  # the parent has gone away
    except MemoryError:
        os._exit(NO_MEMORY)  # at once: an orderly end might need memory


def _serve(requests: BinaryIO, replies: BinaryIO, memory_bytes: int) -> None:
    for count, header in enumerate(read_frames(requests, most=_LONGEST_LIFE), start=1):
        # No name keeps the file: its bytes must be gone before the next one comes.
        messages = partial(_messages, view=header.get("view"))
        outcome = _answer(replies, _received(requests, header), messages, memory_bytes)
        outcome["last"] |= count == FILES_PER_CHILD or peak_memory() > _SPENT * memory_bytes
        write_frame(replies, outcome)
        if outcome["last"]:
            return


def _received(requests: BinaryIO, header: Message) -> RawFile:
    grant_cpu(header["cpu_seconds"])
    return RawFile(
        data=read_exactly(requests, header["size"]),
        source=header["source"],
        stem=header["stem"],
        suffix=header["suffix"],
        text_chars=header["text_chars"],
    )


def _private_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The protocol's own ends of the pipes; a library that prints reaches neither."""
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return requests, replies


def _messages(file: RawFile, view: Message | None) -> Iterator[Message]:
    """What is answered about a file: its documents, or the view of one page."""
    if view is not None:
        from consilience.documents.readers.page import view_page

        yield {"view": view_page(file, view)}
        return
    for document in READERS[recognise(file.data, file.suffix)](file):
        yield {"document": pack_document(document)}


def _answer(
    replies: BinaryIO,
    file: RawFile,
    messages: Callable[[RawFile], Iterator[Message]],
    memory_bytes: int,
) -> Message:
    """Send what is answered about one file, and return the message that ends the answer.

    Its key `last` is set when something went wrong that may have harmed this process.
    """
    try:
        for message in messages(file):
            write_frame(replies, message)
    except DocumentError as error:
        return {"error": pack_error(error), "last": False}
    except MemoryError:
        raise
    # The edge: parsing libraries raise anything over a damaged file, Rust panics included.
    except BaseException as error:
        if peak_memory() > _EXHAUSTED * memory_bytes:
            raise MemoryError from error
        return {"error": pack_error(_unreadable(error)), "last": True}
    return {"end": True, "last": False}


def _unreadable(error: BaseException) -> DocumentError:
    why = storable(one_line(f"{type(error).__name__}: {error}"))[:200]
    return DocumentError(
        f"damaged: its reader failed ({why})", hint="open it in its program and save it again"
    )
