"""Which rows may be nearest: four ways to propose them, all on faiss.

An exact comparison of all rows is certain and takes as long as reading them. Codes of one
bit a direction need no training, grow by copying and are read many times as fast.
Lists around centres (IVF) and a graph of neighbours (HNSW), both over 8-bit values, read only a
part of the rows, but take long to build; they are kept in a file whose name holds its digest, and
built anew once the rows have grown far beyond it. What is proposed is compared exactly by
`vectors`; nothing here decides what is found, and nothing knows text, store or encoder.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

from consilience.retrieval.codes import codes_of, width_of
from consilience.retrieval.vector_files import VectorFiles

faiss: Any = _faiss  # its stubs give the C++ signatures, not those of its Python classes

Approximate = Literal["ivf", "hnsw"]

GROWN = 1.25
"""How many times the rows that it was built from an approximate index may have."""

_BLOCK = 16_384  # rows that are handed to faiss at a time
_TRAINING = 64  # rows for each centre of an inverted file
_NEIGHBOURS = 16  # of a row in the graph
_CARE = 100  # rows that are looked at to find them


class Candidates(Protocol):
    """Proposes rows for a question."""

    def grow(self, files: VectorFiles) -> None:
        """Take in the rows that are not known yet. Raises WornFilesError."""
        ...

    def propose(
        self, vector: NDArray[np.float32], *, count: int, among: NDArray[np.bool_] | None
    ) -> NDArray[np.int64]:
        """Up to `count` rows that are near `vector`, in no order.

        Args:
            vector: The question, `[dimension]`.
            count: How many.
            among: Which rows may be proposed, `[rows]`; None for all.
        """
        ...


class ExactCandidates:
    """The nearest rows themselves, from fp16 vectors in memory."""

    def __init__(self, dimension: int) -> None:
        self._rows = half_precision(dimension)

    def grow(self, files: VectorFiles) -> None:
        """As `Candidates.grow`."""
        for rows in _blocks(self._rows.ntotal, len(files)):
            self._rows.add_sa_codes(files.vectors(rows).view(np.uint8))

    def propose(
        self, vector: NDArray[np.float32], *, count: int, among: NDArray[np.bool_] | None
    ) -> NDArray[np.int64]:
        """As `Candidates.propose`."""
        chosen = None if among is None else faiss.SearchParameters(sel=_selector(among))
        _, rows = self._rows.search(vector[None], min(count, self._rows.ntotal), params=chosen)
        return _found(rows)


class CodeCandidates:
    """The rows whose codes differ from the question's in the fewest bits."""

    def __init__(self, dimension: int) -> None:
        self._codes = faiss.IndexBinaryFlat(8 * width_of(dimension))
        # Counting how many rows differ by how much is faster than a heap of a thousand.
        self._codes.use_heap = False

    def grow(self, files: VectorFiles) -> None:
        """As `Candidates.grow`."""
        for codes in files.codes(self._codes.ntotal):
            self._codes.add(codes)

    def propose(
        self, vector: NDArray[np.float32], *, count: int, among: NDArray[np.bool_] | None
    ) -> NDArray[np.int64]:
        """As `Candidates.propose`."""
        chosen = None if among is None else faiss.SearchParameters(sel=_selector(among))
        count = min(count, self._codes.ntotal)
        _, rows = self._codes.search(codes_of(vector[None]), count, params=chosen)
        return _found(rows)


class ApproximateCandidates:
    """An inverted file or a graph, built beside the vectors.

    Args:
        name: Which of them.
        folder: Where the vectors' files are.
        files: The vectors.
    """

    def __init__(self, name: Approximate, folder: Path, files: VectorFiles) -> None:
        self._name = name
        self._index, self._built = _kept(name, folder, files)
        self.grow(files)

    def outgrown(self, files: VectorFiles) -> bool:
        """Whether so many rows came since that it should be built anew."""
        return len(files) > GROWN * self._built

    def grow(self, files: VectorFiles) -> None:
        """As `Candidates.grow`; the file stays as it is."""
        for rows in _blocks(self._index.ntotal, len(files)):
            self._index.add(files.vectors(rows).astype(np.float32))

    def propose(
        self, vector: NDArray[np.float32], *, count: int, among: NDArray[np.bool_] | None
    ) -> NDArray[np.int64]:
        """As `Candidates.propose`; `count` also says how far it looks."""
        chosen = None if among is None else _selector(among)
        if self._name == "ivf":
            lists = 1 + int(self._index.nlist**0.5 * count / 500)
            effort = faiss.SearchParametersIVF(nprobe=min(lists, self._index.nlist), sel=chosen)
        else:
            effort = faiss.SearchParametersHNSW(efSearch=max(16, count // 4), sel=chosen)
        # Eight bits order the rows almost as the exact comparison does: few of them suffice.
        few = min(max(count // 8, 16), self._index.ntotal)
        _, rows = self._index.search(vector[None], few, params=effort)
        return _found(rows)


def half_precision(dimension: int) -> Any:
    """An empty faiss index that keeps fp16 vectors as they are and compares them exactly."""
    return faiss.IndexScalarQuantizer(
        dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )


def _kept(name: Approximate, folder: Path, files: VectorFiles) -> tuple[Any, int]:
    """The index in the folder and how many rows it was built from; built when there is none."""
    prefix = f"{name}-{files.extent.token}-"
    for path in sorted(folder.glob(f"{prefix}*")):
        built, digest = path.name.removeprefix(prefix).split("-")
        whole = len(files) <= GROWN * int(built) and _digest(path) == digest
        if whole:
            return faiss.read_index(str(path)), int(built)
        path.unlink(missing_ok=True)
    index = _built(name, files)
    unnamed = folder / f"new-{name}-{files.extent.token}-{os.getpid()}"
    faiss.write_index(index, str(unnamed))
    unnamed.replace(folder / f"{prefix}{len(files)}-{_digest(unnamed)}")
    return index, len(files)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def _built(name: Approximate, files: VectorFiles) -> Any:
    index = _empty(name, files.extent.dimension, len(files))
    sample = np.linspace(0, len(files) - 1, min(len(files), _TRAINING * _centres(len(files))))
    index.train(files.vectors(np.unique(sample.astype(np.int64))).astype(np.float32))
    for rows in _blocks(0, len(files)):
        index.add(files.vectors(rows).astype(np.float32))
    return index


def _empty(name: Approximate, dimension: int, rows: int) -> Any:
    eight_bits, product = faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    if name == "hnsw":
        graph = faiss.IndexHNSWSQ(dimension, eight_bits, _NEIGHBOURS, product)
        graph.hnsw.efConstruction = _CARE
        return graph
    centres = faiss.IndexFlatIP(dimension)
    lists = faiss.IndexIVFScalarQuantizer(
        centres, dimension, _centres(rows), eight_bits, product, False
    )
    lists.cp.max_points_per_centroid = _TRAINING
    centres.this.disown()
    lists.own_fields = True
    return lists


def _centres(rows: int) -> int:
    return max(1, min(int(2 * rows**0.5), rows // 39))


def _blocks(first: int, end: int) -> Iterator[NDArray[np.int64]]:
    for start in range(first, end, _BLOCK):
        yield np.arange(start, min(start + _BLOCK, end))


def _selector(among: NDArray[np.bool_]) -> Any:
    return faiss.IDSelectorBitmap(np.packbits(among, bitorder="little"))


def _found(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    found: NDArray[np.int64] = rows[0][rows[0] >= 0]
    return found
