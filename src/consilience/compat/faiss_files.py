"""Index files that faiss wrote, read for the vectors that they hold.

A store keeps its own indexes; of a file that people have, what counts is the vectors and their
order. Kinds that lost the vectors (product quantisation without a refinement) give back what is
left of them. faiss trusts its files, so the kind is read first, and only kinds that are known to
hold plain arrays are handed to it.
"""

from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

from consilience.errors import DamagedError, MissingError

faiss: Any = _faiss  # its stubs give the C++ signatures, not those of its Python classes

Vectors = NDArray[np.float32]

KINDS = {
    b"IxFI": "flat, inner product",
    b"IxF2": "flat, Euclidean",
    b"IxFl": "flat",
    b"IxSQ": "scalar quantiser",
    b"IxPq": "product quantiser",
    b"IwFl": "inverted lists, flat",
    b"IwSq": "inverted lists, scalar quantiser",
    b"IwPQ": "inverted lists, product quantiser",
    b"IHNf": "HNSW, flat",
    b"IHNs": "HNSW, scalar quantiser",
}
"""Kinds of index by the first four bytes of their file."""

_LISTED = (b"IwFl", b"IwSq", b"IwPQ")


class FaissFile:
    """The vectors of an index file.

    Args:
        path: As `faiss.write_index` wrote it.

    Raises:
        MissingError: There is no such file.
        DamagedError: It is of a kind that is not read, or faiss cannot read it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        kind = _kind(path)
        try:
            self._index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
        except RuntimeError as error:
            raise self._damaged() from error
        if kind in _LISTED:
            faiss.extract_index_ivf(self._index).make_direct_map()

    def __len__(self) -> int:
        """How many vectors there are."""
        return int(self._index.ntotal)

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        return int(self._index.d)

    def rows(self, start: int, stop: int) -> Vectors:
        """Vectors from one place to before another, `[stop - start, dimension]`.

        Raises:
            DamagedError: This index does not give its vectors back.
        """
        try:
            found = self._index.reconstruct_n(start, stop - start)
        except RuntimeError as error:
            raise self._damaged() from error
        return np.ascontiguousarray(found, np.float32)

    def _damaged(self) -> DamagedError:
        return DamagedError(
            f"{self.path} is no index that faiss can take vectors from",
            hint="write the vectors into the passages, as embeddings",
        )


def _kind(path: Path) -> bytes:
    if not path.is_file():
        raise MissingError(f"no index at {path}", hint="name a file that faiss.write_index wrote")
    with path.open("rb") as file:
        kind = file.read(4)
    if kind not in KINDS:
        raise DamagedError(
            f"{path} begins with {kind!r}, which is no kind of index that is read here",
            hint=f"known are: {', '.join(sorted(set(KINDS.values())))}",
        )
    return kind
