"""What `add` is given, sorted into origins: files on disk, and documents that come as objects.

An origin can say its digest without being parsed, which is what makes an unchanged one cheap. It
knows how to become the parts of a draft; it does not know what the store holds.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from consilience.documents import (
    Document,
    Failure,
    Found,
    Passage,
    ReadLimits,
    Skipped,
    find_documents,
    read_document,
)
from consilience.errors import DocumentError, UsageError
from consilience.store.base import AddOptions
from consilience.store.drafts import Part, keep_whole, split_document
from consilience.store.frames import Frame, documents_of


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file that is known under another name than its own, as an upload is.

    Attributes:
        path: Where its bytes are; may be gone once it has been added.
        name: Its name in the store, which also says the format.
    """

    path: Path
    name: str


Given = Document | Passage
Item = str | Path | NamedFile | Given | Frame | Iterable[str | Path | NamedFile | Given]
"""What `Store.add` takes: paths, files, documents, passages, tables, and lists of these."""


class Origin(Protocol):
    """What is added, replaced and removed as a whole."""

    @property
    def name(self) -> str:
        """The name under which the store keeps it."""
        ...

    @property
    def is_file(self) -> bool:
        """Whether it can be looked for on disk."""
        ...

    @property
    def size(self) -> int:
        """Bytes of a file, characters of an object: a measure of the work."""
        ...

    def digest(self) -> str:
        """A digest of all its content. Raises DocumentError when it cannot be read."""
        ...

    def parts(self, options: AddOptions) -> tuple[Part, ...]:
        """Its documents, split. Raises DocumentError when it cannot be read or stored."""
        ...


@dataclass(frozen=True, slots=True)
class FileOrigin:
    """One file; it may hold several documents.

    One that is kept under another name cannot be looked for on disk by it: `is_file` is not set.
    """

    path: Path
    name: str
    size: int
    is_file: bool = True

    def digest(self) -> str:
        """SHA-256 of the bytes: size and time of change can both stay while content changes.

        Empty for a file that is too large to be read, which `parts` will say in full: the hole of
        a sparse file can take hours to hash.
        """
        if self.size > ReadLimits().file_bytes:
            return ""
        try:
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DocumentError(
                f"it cannot be read: {error.strerror}", hint="Check that it is still there."
            ) from error

    def parts(self, options: AddOptions) -> tuple[Part, ...]:
        """Read in the limited child process of `consilience.documents`, then split."""
        documents = read_document(self.path, source=self.name, name=self._called)
        return tuple(split_document(document, options) for document in documents)

    @property
    def _called(self) -> str:
        return "" if self.is_file else self.name


@dataclass(frozen=True, slots=True)
class GivenOrigin:
    """A document given as an object, or all the passages given of one source."""

    name: str
    given: tuple[Given, ...]
    is_file: bool = False

    @property
    def size(self) -> int:
        """Characters of text."""
        return sum(len(item.text) for item in self.given)

    def digest(self) -> str:
        """SHA-256 of every field."""
        described = [[type(item).__name__, _fields(item)] for item in self.given]
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    def parts(self, options: AddOptions) -> tuple[Part, ...]:
        """Documents split, passages kept as they are."""
        return tuple(_part(item, options) for item in self.given)


@dataclass(frozen=True, slots=True)
class Collected:
    """The items of one `add`, sorted.

    Attributes:
        origins: What is to be added.
        failed: Paths that are refused before they are opened.
        skipped: How many files and folders below the given folders are not documents.
        below: How the names of files below the given folders begin.
    """

    origins: list[Origin]
    failed: list[Failure]
    skipped: int
    below: list[str]


def _fields(item: Given) -> dict[str, object]:
    if isinstance(item, Document):
        # A mapping of another kind than dict may be neither copied nor written as JSON.
        item = replace(item, metadata=dict(item.metadata))
    return asdict(item)


def _part(item: Given, options: AddOptions) -> Part:
    if isinstance(item, Passage):
        return keep_whole(item, options)
    return split_document(item, options)


def collect(items: Iterable[Item]) -> Collected:
    """Sort items into origins: paths first, then named files, then objects, in the order given.

    Raises:
        UsageError: An item is of no kind that can be added.
    """
    flat = list(_flatten(items))
    paths = [Path(item) for item in flat if isinstance(item, str | Path)]
    found = list(find_documents(paths))
    files = [_file_origin(o.path, o.source, is_file=True) for o in found if isinstance(o, Found)]
    named = [_file_origin(o.path, o.name, is_file=False) for o in flat if isinstance(o, NamedFile)]
    given = _given_origins(item for item in flat if isinstance(item, Document | Passage))
    return Collected(
        origins=[*files, *named, *given],
        failed=[entry for entry in found if isinstance(entry, Failure)],
        skipped=sum(isinstance(entry, Skipped) for entry in found),
        below=[_prefix(path) for path in paths if path.is_dir()],
    )


def _flatten(items: Iterable[object]) -> Iterator[str | Path | NamedFile | Given]:
    for item in items:
        match item:
            case str() | Path() | NamedFile() | Document() | Passage():
                yield item
            case Frame():
                yield from documents_of(item)
            case Iterable() if not isinstance(item, bytes | Mapping):
                yield from _flatten(item)
            case _:
                raise UsageError(
                    f"cannot add {type(item).__name__} {str(item)[:60]}",
                    hint="Add paths, Document or Passage objects, or a table with a column 'text'.",
                )


def _file_origin(path: Path, name: str, *, is_file: bool) -> FileOrigin:
    try:
        size = path.stat().st_size
    except OSError:
        size = 0  # Gone since it was found; reading it will give the reason.
    return FileOrigin(path, name, size, is_file)


def _given_origins(given: Iterable[Given]) -> Iterator[Origin]:
    """Each document by itself; passages together with those of the same source."""
    passages: dict[str, list[Given]] = {}
    for item in given:
        if isinstance(item, Passage):
            passages.setdefault(item.source or item.id, []).append(item)
        else:
            yield GivenOrigin(item.source, (item,))
    for name, group in passages.items():
        yield GivenOrigin(name, tuple(group))


def _prefix(folder: Path) -> str:
    """How the names of files below a folder begin; empty for the current folder."""
    return "" if str(folder) == "." else f"{folder.as_posix().rstrip('/')}/"
