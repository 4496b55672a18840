"""The parent's side of reading: one confined child process, watched and replaced.

The parent streams the bytes of a file to the child and gets documents or a reason back. Whatever
happens to the child (a crash, too much memory, too much time), the parent raises a `DocumentError`
that says so, starts another child for the next file, and goes on. It imports no parsing library.

One child serves many files, because starting one costs as much as reading ten small files. It is
replaced when it fails, when it has grown, when the limits change and after some hundred files.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from consilience.documents.document import Document
from consilience.documents.limits import ReadLimits, megabytes
from consilience.documents.wire import (
    NO_MEMORY,
    Message,
    Seen,
    WireError,
    read_frames,
    unpack_document,
    unpack_error,
    unpack_view,
    write_frame,
)
from consilience.errors import DocumentError

_BOOT = (
    "import json, sys; sys.path += json.loads(sys.argv[1]); "
    "from consilience.documents.worker import main; main(int(sys.argv[2]))"
)
_FLAGS = ("-I", "-S", "-B", "-W", "ignore", "-X", "utf8")
_CHUNK = 1024 * 1024
_ESCAPED = 6  # bytes of one character in a JSON string, as in \u0001
_RECORD = 32  # bytes of answer for one byte of file, as in a file of records of one word each
_GRACE = 5.0  # seconds for a child that has closed its pipe to be gone

_SPLIT = "split the file, or raise the limit"
_REPAIR = "open it in its program and save it again"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class View:
    """A look at one page, asked for in the place of a file's documents.

    Attributes:
        page: Its number, from 1.
        width: How wide its picture is to be, in pixels; 0 for the boxes of characters.
        text: All of its text.
        start: The first character whose box is wanted, counted in that text.
        end: One past the last.
    """

    page: int
    width: int = 0
    text: str = ""
    start: int = 0
    end: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """One file to be read.

    Attributes:
        file: The open file, at its beginning.
        size: Its size in bytes.
        source: The source that its documents get.
        stem: Its name without the suffix, the title of last resort.
        suffix: What its name ends in, with the dot.
        view: The page to look at; None to read the documents.
    """

    file: BinaryIO
    size: int
    source: str
    stem: str
    suffix: str
    view: View | None = None


class Sandbox:
    """Reads files in a confined child process that is started when the first file comes.

    Safe for threads, which take turns, and across forks, after which each side has its own child.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: _Child | None = None

    def read(self, request: Request, limits: ReadLimits) -> list[Document]:
        """The documents of one file.

        Raises:
            DocumentError: The reason why it cannot be read.
        """
        return self._answer(request, limits, _document_in)

    def look(self, request: Request, limits: ReadLimits) -> Seen:
        """What the `view` of a request asks for.

        Raises:
            DocumentError: The reason why there is nothing to see.
        """
        return self._answer(request, limits, _view_in)[0]

    def _answer(
        self, request: Request, limits: ReadLimits, unpack: Callable[[Message], T]
    ) -> list[T]:
        with self._lock:
            child = self._child_for(limits)
            try:
                found, last = child.read(request, unpack)
            except BaseException:
                self._discard()
                raise
            if last:
                self._discard()
        if isinstance(found, DocumentError):
            raise found
        return found

    def close(self) -> None:
        """End the child, if there is one; the next file starts another."""
        with self._lock:
            self._discard()

    def forget(self) -> None:
        """Leave the child to the process that started it; called in a fork."""
        self._lock = threading.Lock()
        self._child = None

    def _child_for(self, limits: ReadLimits) -> "_Child":
        if self._child is not None and not self._child.serves(limits):
            self._discard()
        if self._child is None:
            self._child = _Child(limits)
        return self._child

    def _discard(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None


class _Child:
    """One process, the limits it was started with, and the conversation with it."""

    def __init__(self, limits: ReadLimits) -> None:
        self._limits = limits
        self._late = False
        self._process = _started(limits)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests: BinaryIO = self._process.stdin  # type: ignore[assignment]
        self._replies: BinaryIO = self._process.stdout  # type: ignore[assignment]

    def serves(self, limits: ReadLimits) -> bool:
        """Whether the process is alive and was started with these limits."""
        return limits == self._limits and not self._late and self._process.poll() is None

    def read(
        self, request: Request, unpack: Callable[[Message], T]
    ) -> tuple[list[T] | DocumentError, bool]:
        """What is in a file or the reader's reason, and whether the child is spent.

        Raises:
            DocumentError: The file changed while it was read, or the child did not survive it.
        """
        with self._clock():
            try:
                self._send(request)
                return self._receive(request, unpack)
            except (WireError, BrokenPipeError) as error:
                raise self._verdict(error) from error

    def end(self) -> None:
        """Kill the process and close its pipes."""
        self._process.kill()
        for stream in (self._requests, self._replies):
            with suppress(OSError):
                stream.close()
        self._process.wait()

    @contextmanager
    def _clock(self) -> Iterator[None]:
        """Kill the process when the time on the clock is over; a blocked read then ends."""
        clock = threading.Timer(self._limits.wall_seconds, self._time_out)
        clock.daemon = True
        clock.start()
        try:
            yield
        finally:
            clock.cancel()
            clock.join()

    def _time_out(self) -> None:
        self._late = True
        self._process.kill()

    def _send(self, request: Request) -> None:
        header = {
            "source": request.source,
            "stem": request.stem,
            "suffix": request.suffix,
            "size": request.size,
            "text_chars": self._limits.text_chars,
            "cpu_seconds": self._limits.cpu_seconds,
            "view": None if request.view is None else asdict(request.view),
        }
        write_frame(self._requests, header)
        self._stream(request)
        self._requests.flush()

    def _stream(self, request: Request) -> None:
        left = request.size
        while left:
            chunk = request.file.read(min(left, _CHUNK))
            if not chunk:
                raise DocumentError("changed while it was read", hint="add it again")
            self._requests.write(chunk)
            left -= len(chunk)

    def _receive(
        self, request: Request, unpack: Callable[[Message], T]
    ) -> tuple[list[T] | DocumentError, bool]:
        found: list[T] = []
        messages = read_frames(self._replies, most=self._longest_answer(request))
        for message in messages:
            if message.keys() & {"end", "error"}:
                return _outcome(message, found), message.get("last") is not False
            found.append(unpack(message))
        raise AssertionError("frames end with an error")

    def _longest_answer(self, request: Request) -> int:
        """The most bytes that an answer about this file can honestly have."""
        return _CHUNK + _ESCAPED * self._limits.text_chars + _RECORD * request.size

    def _verdict(self, error: Exception) -> DocumentError:
        """Why the conversation broke off, told by how the process ended."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE)
        if self._late:
            return took_too_long(self._limits)
        if self._process.returncode is None:
            return DocumentError(f"its reader answered nonsense ({error})")
        return cause_of_death(self._process.returncode, self._limits)


def _started(limits: ReadLimits) -> subprocess.Popen[bytes]:
    command = [sys.executable, *_FLAGS, "-c", _BOOT, json.dumps(_import_path())]
    try:
        return subprocess.Popen(
            [*command, str(limits.memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            cwd=os.path.abspath(os.sep),
            start_new_session=True,
        )
    except OSError as error:
        raise DocumentError(f"its reader cannot be started: {error}") from error


def _document_in(message: Message) -> Document:
    return unpack_document(message.get("document"))


def _view_in(message: Message) -> Seen:
    return unpack_view(message.get("view"))


def _outcome(message: Message, found: list[T]) -> list[T] | DocumentError:
    """What the message that ends an answer makes of what came before it."""
    if "error" in message:
        return unpack_error(message["error"])
    return found if found else DocumentError("holds no text")


def cause_of_death(returncode: int, limits: ReadLimits) -> DocumentError:
    """What the end of a child says about the file that it was reading.

    Args:
        returncode: As `subprocess` reports it: minus the number of a signal, or an exit code.
        limits: The limits that the child was under.
    """
    if returncode == NO_MEMORY:
        return needed_memory(limits)
    if returncode >= 0:
        return DocumentError(f"its reader stopped (exit code {returncode})", hint=_REPAIR)
    name = _signal_name(-returncode)
    if name == "SIGXCPU":
        return DocumentError(f"took more than {limits.cpu_seconds} s of CPU", hint=_SPLIT)
    if name in ("SIGABRT", "SIGKILL"):  # how allocators in C and Rust, and the kernel, give up
        return needed_memory(limits)
    return DocumentError(f"its reader crashed (signal {-returncode}, {name})", hint=_REPAIR)


def needed_memory(limits: ReadLimits) -> DocumentError:
    """The reason of a file that exhausted the child's memory."""
    return DocumentError(
        f"needed more than {megabytes(limits.memory_bytes)} of memory", hint=_SPLIT
    )


def took_too_long(limits: ReadLimits) -> DocumentError:
    """The reason of a file whose reader was stopped by the clock."""
    return DocumentError(f"took more than {limits.wall_seconds} s", hint=_SPLIT)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def _import_path() -> list[str]:
    """Where the child finds this package and the parsing libraries: where the parent found them.

    The child starts isolated and without site packages; these entries come after its own standard
    library, and the current folder is never among them.
    """
    here = str(Path(__file__).resolve().parents[2])
    return [here, *(entry for entry in sys.path if os.path.isabs(entry) and entry != here)]


def _environment() -> Mapping[str, str]:
    """The few variables that a child needs; none that carries a secret."""
    kept = {
        name: os.environ[name] for name in ("SYSTEMROOT", "LD_LIBRARY_PATH") if name in os.environ
    }
    return {"LC_ALL": "C.UTF-8", "MALLOC_ARENA_MAX": "1", **kept}


SHARED = Sandbox()
"""The sandbox of this process, with at most one child."""

VIEWS = Sandbox()
"""Another for views of pages, so that nobody who reads one waits for a file that is read in."""

for _sandbox in (SHARED, VIEWS):
    atexit.register(_sandbox.close)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_sandbox.forget)
