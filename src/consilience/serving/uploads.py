"""Uploads: the parts of a form, streamed to files with names of the server's own.

Of a request nothing is believed: how many parts there are, how long their headers and fields may
be, how many files and how large, all of it is counted while it comes in. A request that breaks one
limit, breaks off or comes too slowly leaves nothing behind. Knows multipart and the disk; what the
files are for is decided by whoever asked for them.
"""

import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import anyio.to_thread
from fastapi import Request
from starlette.requests import ClientDisconnect

from consilience.errors import ConsilienceError, UsageError
from consilience.serving.errors import TooLargeError
from consilience.serving.naming import display_name

if TYPE_CHECKING:
    from python_multipart import MultipartParser

PART = ".part"
"""What the name of a file ends in that is still coming in."""

_HEADERS = 8  # of one part; browsers send two
_HEADER_BYTES = 4096  # of one header line; a name of 200 characters has at most 800
_FIELDS = 64  # parts that are no files
_FIELD_BYTES = 4096
_BOUNDARY = 70  # characters, as RFC 2046 has it
_FORM = "send a form as multipart/form-data, with the files in the field {field}"


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """How much one request may bring.

    Attributes:
        files: Files.
        file_bytes: Bytes of one of them.
    """

    files: int
    file_bytes: int


@dataclass(frozen=True, slots=True)
class Uploaded:
    """One file that has come in.

    Attributes:
        path: Where it is.
        name: What it is called, for people.
        size: In bytes.
        digest: SHA-256 of them, in hex.
    """

    path: Path
    name: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Form:
    """What a request brought.

    Attributes:
        files: In their order, at least one.
        fields: The values of every other field, by name.
    """

    files: tuple[Uploaded, ...]
    fields: Mapping[str, tuple[str, ...]]

    def one(self, name: str) -> str:
        """The value of a field that may stand once; empty where it is missing.

        Raises:
            UsageError: It stands there several times.
        """
        values = self.fields.get(name, ("",))
        if len(values) > 1:
            raise UsageError(
                f"the field {name!r} is there {len(values)} times", hint="send it once"
            )
        return values[0]


@asynccontextmanager
async def received(
    request: Request, folder: Path, *, field_name: str, limits: UploadLimits
) -> AsyncIterator[Form]:
    """The form that a request brings; files that nobody has moved by the end are deleted.

    Args:
        request: Its body has not been read.
        folder: Where files go; made if it is missing.
        field_name: The field that holds files.
        limits: How much it may bring.

    Raises:
        UsageError: No form, a broken one, one without a file, or with a name that is none.
        TooLargeError: A file, a field or a header is too long, or there are too many.
        ConsilienceError: The disk is full.
    """
    receiver = Receiver(request.headers.get("content-type", ""), folder, field_name, limits)
    try:
        async for chunk in _chunks(request):
            await anyio.to_thread.run_sync(receiver.feed, chunk)
        yield await anyio.to_thread.run_sync(receiver.finish)
    finally:
        receiver.discard()


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect as error:
        raise UsageError("the upload broke off", hint="send it again") from error


def form_schema(field_name: str, fields: Mapping[str, str]) -> dict[str, Any]:
    """What OpenAPI is told of such a form.

    Args:
        field_name: The field that holds files.
        fields: The type of every other field, by name; an `array` is one of text.
    """
    properties: dict[str, Any] = {field_name: _array({"type": "string", "format": "binary"})}
    for name, kind in fields.items():
        properties[name] = _array({"type": "string"}) if kind == "array" else {"type": kind}
    schema = {"type": "object", "required": [field_name], "properties": properties}
    content = {"multipart/form-data": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


def _array(items: Mapping[str, str]) -> dict[str, Any]:
    return {"type": "array", "items": dict(items), "minItems": 1}


class Receiver:
    """Takes the bytes of one form, part after part.

    Args:
        content_type: The header of the request.
        folder: Where files go.
        field_name: The field that holds files.
        limits: How much there may be.

    Raises:
        UsageError: The header announces no form.
    """

    def __init__(
        self, content_type: str, folder: Path, field_name: str, limits: UploadLimits
    ) -> None:
        self._folder, self._field_name, self._limits = folder, field_name, limits
        self._parser = _parser(_boundary(content_type, field_name), self._callbacks())
        self._files: list[_Incoming] = []
        self._fields: dict[str, list[str]] = {}
        self._count = 0
        self._name, self._value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._part: _Incoming | _Field | None = None
        self._whole = False

    def feed(self, chunk: bytes) -> None:
        """Take some more bytes.

        Raises:
            UsageError: They are not of a form.
            TooLargeError: A limit is exceeded.
            ConsilienceError: They could not be written.
        """
        from python_multipart.exceptions import FormParserError

        try:
            with _writing():
                self._parser.write(chunk)
        except FormParserError as error:
            raise self._broken() from error

    def finish(self) -> Form:
        """What came in.

        Raises:
            UsageError: It broke off, or there was no file in it.
        """
        if not self._whole:
            raise self._broken()
        if not self._files:
            raise UsageError(
                f"the form has no file in the field {self._field_name!r}",
                hint=_FORM.format(field=self._field_name),
            )
        with _writing():
            files = tuple(file.uploaded() for file in self._files)
        return Form(files, {name: tuple(values) for name, values in self._fields.items()})

    def discard(self) -> None:
        """Delete every file that has not been moved away."""
        for file in self._files:
            file.discard()

    def _broken(self) -> UsageError:
        return UsageError(
            "the form is broken or incomplete", hint=_FORM.format(field=self._field_name)
        )

    def _callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._open,
            "on_part_data": self._take,
            "on_part_end": self._close,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._headers = {}
        self._count += 1
        if self._count > _FIELDS + self._limits.files:
            raise TooLargeError("the form has too many parts", hint="send it in several requests")

    def _end_header(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name, self._value = bytearray(), bytearray()

    def _open(self) -> None:
        """A part begins: find out what it is from its headers."""
        from python_multipart.multipart import parse_options_header

        kind, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if kind != b"form-data" or b"name" not in options:
            raise self._broken()
        field_name = _text(options[b"name"], "the name of a field")
        if b"filename" in options:
            self._part = self._opened_file(field_name, options[b"filename"])
        else:
            self._part = _Field(field_name)

    def _opened_file(self, field_name: str, given: bytes) -> "_Incoming":
        if field_name != self._field_name:
            raise UsageError(
                f"a file came in the field {field_name[:60]!r}",
                hint=_FORM.format(field=self._field_name),
            )
        if len(self._files) == self._limits.files:
            raise TooLargeError(
                f"the form has more than {self._limits.files} files",
                hint="send them in several requests",
            )
        name = display_name(_text(given, "the name of a file"))
        self._files.append(_Incoming.opened(self._folder, name, self._limits.file_bytes))
        return self._files[-1]

    def _take(self, data: bytes, start: int, end: int) -> None:
        assert self._part is not None
        self._part.take(memoryview(data)[start:end])

    def _close(self) -> None:
        if isinstance(self._part, _Field):
            value = _text(bytes(self._part.value), f"the field {self._part.name!r}")
            self._fields.setdefault(self._part.name, []).append(value)
        elif self._part is not None:
            self._part.close()
        self._part = None

    def _end(self) -> None:
        self._whole = True


@dataclass(slots=True)
class _Field:
    """A part that is a value."""

    name: str
    value: bytearray = field(default_factory=bytearray)

    def take(self, data: memoryview) -> None:
        self.value += data
        if len(self.value) > _FIELD_BYTES:
            raise TooLargeError(
                f"the field {self.name[:60]!r} has more than {_FIELD_BYTES} bytes",
                hint="send files with a filename",
            )


@dataclass(slots=True)
class _Incoming:
    """A part that is a file, on its way to the disk."""

    path: Path
    name: str
    most: int
    file: BinaryIO
    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    @classmethod
    def opened(cls, folder: Path, name: str, most: int) -> "_Incoming":
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / f"{secrets.token_hex(16)}{PART}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        return cls(path, name, most, os.fdopen(descriptor, "wb"))

    def take(self, data: memoryview) -> None:
        self.size += len(data)
        if self.size > self.most:
            raise TooLargeError(
                f"{self.name!r} has more than {self.most} bytes",
                hint="split the file, or raise the limit",
            )
        self.digest.update(data)
        self.file.write(data)

    def close(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()

    def uploaded(self) -> Uploaded:
        return Uploaded(self.path, self.name, self.size, self.digest.hexdigest())

    def discard(self) -> None:
        with suppress(OSError):  # what a full disk did not take is not wanted any more
            self.file.close()
        self.path.unlink(missing_ok=True)


def _parser(boundary: bytes, callbacks: Any) -> "MultipartParser":
    from python_multipart import MultipartParser

    return MultipartParser(
        boundary, callbacks, max_header_count=_HEADERS, max_header_size=_HEADER_BYTES
    )


def _boundary(content_type: str, field_name: str) -> bytes:
    from python_multipart.multipart import parse_options_header

    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 0 < len(boundary) <= _BOUNDARY:
        raise UsageError("the request is no form", hint=_FORM.format(field=field_name))
    return boundary


def _text(data: bytes, what: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} is not UTF-8", hint="send names and fields as UTF-8") from error


@contextmanager
def _writing() -> Iterator[None]:
    """What the disk refuses, in words."""
    try:
        yield
    except OSError as error:
        raise ConsilienceError(
            f"the upload could not be kept: {error.strerror}", hint="make room, and send it again"
        ) from error
