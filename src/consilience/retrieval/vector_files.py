"""Vectors in files that a process maps into memory: what is in them, and whether to believe them.

Three files belong together and only ever grow: the vectors (fp16, row after row), a record for
each (its passage's number, its access labels, its code of one bit a direction, checksums), and the
numbers that were removed since. A manifest, replaced last and whole, says how far each of them
counts; what lies beyond that was not finished and is overwritten. Removed rows stay where they are
until so many are dead that the living are copied into new files, under a new name.

A file that is missing, too short, of another store or of another version is recognised when it is
opened, and a changed record too. A vector is compared with its checksum when it is first used: to
read all of them would take longer than to answer. The checksums are against accidents; whoever can
write here can write the store. Nothing here knows SQL, questions or how vectors are searched.
"""

import hashlib
import json
import mmap
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from consilience.errors import DamagedError
from consilience.retrieval.codes import codes_of, width_of

RECIPE = "vectors 1"
"""The layout of the files. Raise the number whenever it changes."""

MANIFEST = "manifest.json"
_TOKEN = re.compile(r"[0-9a-f]{16}")
_REMOVED = np.dtype([("number", "<i8"), ("check", "<u8")])
_BLOCK = 16_384  # rows that are read, checked or copied at a time


class WornFilesError(DamagedError):
    """The files are not what their manifest says; whoever meets it makes them anew."""

    def __init__(self, message: str) -> None:
        super().__init__(message, hint="Check the disk: the file was made anew and failed again.")


@dataclass(frozen=True, slots=True)
class Extent:
    """How far the files count, and of what they were made.

    Attributes:
        recipe: See `RECIPE`.
        identity: The store's identity.
        fingerprint: The encoder of the vectors.
        dimension: The length of a vector.
        token: What the names of the files end with; another token, other files.
        sequence: The store's commit that the files have reached.
        rows: How many vectors and records count.
        removed: How many removals count.
        kinds: The distinct sets of access labels; a record names one by its place here.
    """

    recipe: str
    identity: str
    fingerprint: str
    dimension: int
    token: str
    sequence: int = 0
    rows: int = 0
    removed: int = 0
    kinds: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def new(cls, *, identity: str, fingerprint: str, dimension: int) -> Self:
        """Of files that are still to be written."""
        return cls(RECIPE, identity, fingerprint, dimension, secrets.token_hex(8))

    def continues(self, earlier: "Extent") -> bool:
        """Whether these are the same files, with nothing or more at their ends."""
        grown = self.rows >= earlier.rows and self.removed >= earlier.removed
        return self.token == earlier.token and grown


def read_extent(folder: Path) -> Extent | None:
    """What the manifest of a folder says, or None when there is none that can be believed."""
    try:
        found = json.loads((folder / MANIFEST).read_bytes())
        values = found["extent"]
        if found["sha256"] != _seal(values):
            return None
        kinds = tuple(tuple(kind) for kind in values["kinds"])
        extent = Extent(**{**values, "kinds": kinds})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    known = extent.recipe == RECIPE and _TOKEN.fullmatch(extent.token) is not None
    return extent if known else None


def write_extent(folder: Path, extent: Extent) -> None:
    """Put a manifest in the place of the old one, whole or not at all."""
    values = asdict(extent)
    beside = folder / f"{MANIFEST}.new"
    with beside.open("w", encoding="utf-8") as file:
        json.dump({"extent": values, "sha256": _seal(values)}, file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(folder / MANIFEST)


def _seal(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def clear_away(folder: Path, keep: Extent | None) -> None:
    """Delete the files of all tokens but one. Processes that have them mapped keep them."""
    for path in folder.glob("*-*"):
        if keep is None or keep.token not in path.name:
            path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Shapes and checksums of one extent's files.

    The checksum of a row of 64-bit words is a sum of the words with random odd factors, which the
    store's identity and the files' token decide: rows of other files do not pass.
    """

    dimension: int
    record: np.dtype[Any]
    factors: NDArray[np.uint64]

    @classmethod
    def of(cls, extent: Extent) -> "_Layout":
        width = width_of(extent.dimension)
        fields = [("number", "<i8"), ("vector", "<u8"), ("kind", "<i8"), ("code", "u1", (width,))]
        seed = hashlib.sha256(f"{extent.identity}{extent.token}".encode()).digest()
        words = max(extent.dimension // 4 + 1, width // 8 + 4) + 1
        factors = np.random.PCG64(int.from_bytes(seed)).random_raw(words) | np.uint64(1)
        return cls(extent.dimension, np.dtype([*fields, ("check", "<u8")]), factors)

    def checksums(self, rows: NDArray[Any]) -> NDArray[np.uint64]:
        """A checksum for each row of bytes, `[rows, bytes]`."""
        spare = -rows.shape[1] % 8
        words = np.ascontiguousarray(np.pad(rows, ((0, 0), (0, spare))) if spare else rows)
        words = words.view(np.uint64)
        mixed = words ^ (words >> np.uint64(32))
        sums: NDArray[np.uint64] = mixed @ self.factors[1 : words.shape[1] + 1] + self.factors[0]
        return sums

    def of_vectors(self, vectors: NDArray[np.float16]) -> NDArray[np.uint64]:
        return self.checksums(vectors.view(np.uint8).reshape(len(vectors), 2 * self.dimension))

    def of_records(self, records: NDArray[Any]) -> NDArray[np.uint64]:
        return self.checksums(_bytes(records)[:, :-8])

    def of_numbers(self, numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
        return self.checksums(numbers.astype("<i8")[:, None].view(np.uint8))


def _bytes(records: NDArray[Any]) -> NDArray[np.uint8]:
    whole = np.ascontiguousarray(records).view(np.uint8)
    return whole.reshape(len(records), records.dtype.itemsize)


class VectorFiles:
    """The files of one store's vectors, mapped to be read. Deleting them does no harm to a reader.

    Args:
        folder: Where they are.
        extent: How far they count.

    Attributes:
        extent: As given, or as `grow` was given since.
        numbers: The passage number of every row, `[rows]`, ascending.
        kind_of: Which of `extent.kinds` every row has, `[rows]`.
        live: Whether the row's passage was not removed, `[rows]`.

    Raises:
        WornFilesError: A file is missing, too short, or not as it was written.
    """

    def __init__(self, folder: Path, extent: Extent) -> None:
        self._layout = _Layout.of(extent)
        self._paths = paths_of(folder, extent)
        self.numbers: NDArray[np.int64] = np.empty(0, np.int64)
        self.kind_of: NDArray[np.int32] = np.empty(0, np.int32)
        self.live: NDArray[np.bool_] = np.empty(0, np.bool_)
        self._sums: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._used: NDArray[np.bool_] = np.empty(0, np.bool_)
        self.extent = replace(extent, rows=0, removed=0)
        with _worn():
            self._file = self._paths["vectors"].open("rb")
        self.grow(extent)

    def __len__(self) -> int:
        """How many rows there are, dead ones among them."""
        return len(self.numbers)

    def grow(self, extent: Extent) -> None:
        """Take in what was written behind the rows that are known. Raises as the class does."""
        before, self.extent = self.extent, extent
        new = [self._known(block) for block in self._records(before.rows)]
        columns = [np.concatenate(column) for column in zip(*new, strict=True)] if new else []
        if columns:
            self.numbers = np.concatenate([self.numbers, columns[0]])
            self.kind_of = np.concatenate([self.kind_of, columns[1]])
            self._sums = np.concatenate([self._sums, columns[2]])
        if not (np.diff(self.numbers[max(before.rows - 1, 0) :]) > 0).all():
            raise WornFilesError(f"{self._paths['records']} is not in order")
        self.live = _lengthened(self.live, extent.rows, filling=True)
        self._used = _lengthened(self._used, extent.rows, filling=False)
        self.live[rows_of(self.numbers, self._removed(before.removed))] = False
        self._map()

    @staticmethod
    def _known(records: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        return (
            records["number"].astype(np.int64),
            records["kind"].astype(np.int32),
            records["vector"].astype(np.uint64),
        )

    def _map(self) -> None:
        self._size = self.extent.rows * self.extent.dimension * 2
        self._require_whole()
        held: mmap.mmap | bytes = b""
        if self._size:
            held = mmap.mmap(self._file.fileno(), self._size, prot=mmap.PROT_READ)
        rows = np.frombuffer(held, "<f2").reshape(self.extent.rows, self.extent.dimension)
        self._vectors: NDArray[np.float16] = rows

    def _require_whole(self) -> None:
        # A process that touches what was cut off from under it is killed; this asks beforehand.
        if os.fstat(self._file.fileno()).st_size < self._size:
            raise WornFilesError(f"{self._paths['vectors']} was cut off")

    def _records(self, first: int) -> Iterator[NDArray[Any]]:
        """The records from row `first` on, in blocks, compared with their checksums."""
        for start in range(first, self.extent.rows, _BLOCK):
            count = min(_BLOCK, self.extent.rows - start)
            records = self._read("records", self._layout.record, start, count)
            if not np.array_equal(records["check"], self._layout.of_records(records)):
                raise WornFilesError(f"{self._paths['records']} has changed")
            yield records

    def _removed(self, first: int) -> NDArray[np.int64]:
        count = self.extent.removed - first
        removed = self._read("removed", _REMOVED, first, count)
        numbers: NDArray[np.int64] = removed["number"].astype(np.int64)
        if not np.array_equal(removed["check"], self._layout.of_numbers(numbers)):
            raise WornFilesError(f"{self._paths['removed']} has changed")
        return numbers

    def _read(self, name: str, dtype: np.dtype[Any], first: int, count: int) -> NDArray[Any]:
        with _worn():
            offset = first * dtype.itemsize
            found = np.fromfile(self._paths[name], dtype, count=count, offset=offset)
        if len(found) < count:
            raise WornFilesError(f"{self._paths[name]} was cut off")
        return found

    def codes(self, first: int) -> Iterator[NDArray[np.uint8]]:
        """The codes of the rows from `first` on, `[rows, bytes]`, in blocks. Raises as above."""
        for records in self._records(first):
            yield np.ascontiguousarray(records["code"])

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """Copies of vectors, `[rows, dimension]`. Raises as the class does."""
        self._require_whole()
        vectors: NDArray[np.float16] = self._vectors[rows]
        unused = ~self._used[rows]
        if unused.any():
            self._check(rows[unused], vectors[unused])
        return vectors

    def _check(self, rows: NDArray[np.int64], vectors: NDArray[np.float16]) -> None:
        if not np.array_equal(self._sums[rows], self._layout.of_vectors(vectors)):
            raise WornFilesError(f"{self._paths['vectors']} has changed")
        self._used[rows] = True

    def close(self) -> None:
        """Let the file go; the memory is unmapped when nobody looks at it any more."""
        self._file.close()


class VectorWriter:
    """Writes at the ends of the files of an extent. Nothing of it counts before `vouch`.

    Args:
        folder: Where they are.
        extent: What counts so far; what lies behind it is overwritten.
    """

    def __init__(self, folder: Path, extent: Extent) -> None:
        self._folder, self._extent = folder, extent
        self._layout = _Layout.of(extent)
        self._kinds = {kind: place for place, kind in enumerate(extent.kinds)}
        self._rows, self._removed = extent.rows, extent.removed
        sizes = {"vectors": extent.dimension * 2, "records": self._layout.record.itemsize}
        ends = {name: size * extent.rows for name, size in sizes.items()}
        ends["removed"] = _REMOVED.itemsize * extent.removed
        self._files = {n: _at(path, ends[n]) for n, path in paths_of(folder, extent).items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def take(
        self,
        numbers: Sequence[int] | NDArray[np.int64],
        vectors: NDArray[np.float16],
        access: Iterable[tuple[str, ...]],
    ) -> None:
        """Append rows: numbers that grow, vectors `[rows, dimension]`, and their labels."""
        records = np.zeros(len(numbers), self._layout.record)
        vectors = np.ascontiguousarray(vectors, "<f2")
        records["number"] = numbers
        records["kind"] = [self._kinds.setdefault(kind, len(self._kinds)) for kind in access]
        records["code"] = codes_of(vectors)
        records["vector"] = self._layout.of_vectors(vectors)
        records["check"] = self._layout.of_records(records)
        vectors.tofile(self._files["vectors"])
        records.tofile(self._files["records"])
        self._rows += len(numbers)

    def forget(self, numbers: Sequence[int]) -> None:
        """Append removals."""
        removed = np.zeros(len(numbers), _REMOVED)
        removed["number"] = numbers
        removed["check"] = self._layout.of_numbers(removed["number"])
        removed.tofile(self._files["removed"])
        self._removed += len(numbers)

    def vouch(self, sequence: int) -> Extent:
        """Make what was written count as the state of the store's commit `sequence`."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        extent = replace(
            self._extent,
            sequence=sequence,
            rows=self._rows,
            removed=self._removed,
            kinds=tuple(self._kinds),
        )
        write_extent(self._folder, extent)
        return extent


def compact(folder: Path, files: VectorFiles) -> Extent:
    """Copy the living rows into new files, and let those count.

    Raises:
        WornFilesError: What is copied is not as it was written.
        OSError: There is no room.
    """
    old = files.extent
    new = Extent.new(identity=old.identity, fingerprint=old.fingerprint, dimension=old.dimension)
    living = np.flatnonzero(files.live)
    with VectorWriter(folder, new) as writer:
        for start in range(0, len(living), _BLOCK):
            rows = living[start : start + _BLOCK]
            access = [old.kinds[kind] for kind in files.kind_of[rows]]
            writer.take(files.numbers[rows], files.vectors(rows), access)
        return writer.vouch(old.sequence)


def rows_of(numbers: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """The places of `wanted` in ascending `numbers`; those that are not there are left out."""
    places = np.searchsorted(numbers, wanted)
    there = places < len(numbers)
    places, wanted = places[there], wanted[there]
    found: NDArray[np.int64] = places[numbers[places] == wanted]
    return found


def paths_of(folder: Path, extent: Extent) -> dict[str, Path]:
    """The files of an extent by what is in them."""
    return {name: folder / f"{name}-{extent.token}" for name in ("vectors", "records", "removed")}


def _at(path: Path, offset: int) -> BinaryIO:
    """A file opened for writing from a place on; it is never cut, since others have it mapped."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
    file.seek(offset)
    return file


def _lengthened(flags: NDArray[np.bool_], length: int, *, filling: bool) -> NDArray[np.bool_]:
    return np.concatenate([flags, np.full(length - len(flags), filling)])


@contextmanager
def _worn() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WornFilesError(str(error)) from error
