"""Vectors in memory and the search among them, on faiss. Knows neither text, store nor encoder.

Every vector is kept twice: as fp16, searched exactly, and as the signs of its components, one bit
each. From 50,000 vectors on the signs choose a thousand candidates and fp16 ranks those, which
finds 98.5 to 99.8 % of what an exact search finds at a tenth of its cost, without any training.
"""

from collections.abc import Sequence
from typing import Any

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

faiss: Any = _faiss  # its stubs give the C++ signatures, not those of its Python classes

CODES_FROM = 50_000
"""The number of vectors from which on candidates are chosen by their signs."""

CANDIDATES = 1000
"""How many vectors the signs choose; beyond 2,000 faiss becomes slower than an exact search."""


class VectorTable:
    """Numbered unit vectors, compared by inner product.

    Args:
        dimension: The length of a vector.
        codes_from: See `CODES_FROM`.
    """

    def __init__(self, dimension: int, *, codes_from: int = CODES_FROM) -> None:
        self._codes_from = codes_from
        self._numbers: NDArray[np.int64] = np.empty(0, np.int64)
        self._exact = faiss.IndexScalarQuantizer(
            dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        self._signs = faiss.IndexBinaryFlat(-(-dimension // 8) * 8)

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def numbers(self) -> NDArray[np.int64]:
        """The number of every row, `[rows]`."""
        return self._numbers

    def add(self, numbers: Sequence[int], vectors: NDArray[np.float16]) -> None:
        """Append rows; `vectors` is `[len(numbers), dimension]`."""
        self._numbers = np.concatenate([self._numbers, np.asarray(numbers, np.int64)])
        self._exact.add(np.ascontiguousarray(vectors, np.float32))
        self._signs.add(_signs(vectors))

    def remove(self, numbers: Sequence[int]) -> NDArray[np.bool_]:
        """Forget rows; the rows after them move up.

        Returns:
            Which of the rows there were stay, for what is kept beside them.
        """
        stay = ~np.isin(self._numbers, np.asarray(numbers, np.int64))
        positions = np.flatnonzero(~stay)
        self._exact.remove_ids(positions)
        self._signs.remove_ids(positions)
        self._numbers = self._numbers[stay]
        return stay

    def search(
        self, vector: NDArray[np.float32], *, depth: int, mask: NDArray[np.bool_] | None = None
    ) -> list[tuple[int, float]]:
        """The numbers of the `depth` nearest rows with their inner products, nearest first.

        Args:
            vector: The question, `[dimension]`, of length one.
            depth: How many, at least 1.
            mask: Which rows may be found, `[rows]`; None for all.
        """
        depth = min(depth, len(self))
        if depth == 0:
            return []
        if self._codes_from <= len(self) and depth <= CANDIDATES:
            positions, scores = self._among(self._alike(vector, mask), vector)
        else:
            positions, scores = self._nearest(vector, depth, mask)
        numbers = self._numbers[positions]
        order = np.lexsort((numbers, -scores))[:depth]
        return [(int(numbers[i]), float(scores[i])) for i in order]

    def _nearest(
        self, vector: NDArray[np.float32], depth: int, mask: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Positions and inner products of the nearest rows."""
        scores, positions = self._exact.search(vector[None], depth, params=_selecting(mask))
        found = positions[0] >= 0
        return positions[0][found], scores[0][found]

    def _alike(
        self, vector: NDArray[np.float32], mask: NDArray[np.bool_] | None
    ) -> NDArray[np.int64]:
        """Positions of the rows whose components have the most signs in common with `vector`."""
        wanted = min(CANDIDATES, len(self))
        _, positions = self._signs.search(_signs(vector[None]), wanted, params=_selecting(mask))
        found: NDArray[np.int64] = positions[0][positions[0] >= 0]
        return found

    def _among(
        self, positions: NDArray[np.int64], vector: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The positions with their inner products."""
        return positions, self._exact.reconstruct_batch(positions) @ vector


def _signs(vectors: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.packbits(vectors > 0, axis=1)


def _selecting(mask: NDArray[np.bool_] | None) -> Any:
    if mask is None:
        return None
    bits = np.packbits(mask, bitorder="little")
    return faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
