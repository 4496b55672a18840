"""The search among vectors: rows are proposed by an index, compared exactly, and ranked.

How rows are proposed goes by their number: up to 50,000 all are compared, beyond that those whose
codes are alike, which finds 98 to 99 % of the ten nearest of an exact search. Where a filter
leaves few rows they are compared one and all, without any index. Knows neither text, store nor
encoder, and nothing of who may read what: it is told which rows may be found.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from consilience.retrieval.candidates import (
    ApproximateCandidates,
    Candidates,
    CodeCandidates,
    ExactCandidates,
    half_precision,
)
from consilience.retrieval.tuning import IndexName
from consilience.retrieval.vector_files import Extent, VectorFiles

CODES_FROM = 50_000
"""The number of vectors from which on, left to itself, the search goes by codes."""

_FEW = 4096  # rows that are compared one and all
_MANY = 16_384  # candidates; beyond that an index is no faster than comparing all
_BLOCK = 16_384  # rows that are compared at a time
_PASSED_OVER = 1000  # dead rows for which no row is asked whether it lives


class VectorTable:
    """Numbered unit vectors in files, compared by inner product.

    Args:
        folder: Where the files are.
        extent: How far they count.
        index: How rows are proposed.
        codes_from: See `CODES_FROM`.

    Attributes:
        files: The files, with the number and the labels of every row.

    Raises:
        WornFilesError: The files are not as they were written; so does every method.
    """

    def __init__(
        self,
        folder: Path,
        extent: Extent,
        *,
        index: IndexName = "auto",
        codes_from: int = CODES_FROM,
    ) -> None:
        self.files = VectorFiles(folder, extent)
        self._folder, self._index, self._codes_from = folder, index, codes_from
        self._compared = half_precision(extent.dimension)
        self._dead = _dead(self.files)
        self._name, self._candidates = self._chosen()

    def _chosen(self) -> tuple[IndexName, Candidates]:
        """The index that the number of rows asks for, filled."""
        name = self._wanted()
        if name in ("ivf", "hnsw"):
            return name, ApproximateCandidates(name, self._folder, self.files)
        dimension = self.files.extent.dimension
        candidates = ExactCandidates(dimension) if name == "exact" else CodeCandidates(dimension)
        candidates.grow(self.files)
        return name, candidates

    def _wanted(self) -> IndexName:
        if self._index == "auto" or len(self.files) == 0:
            return "codes" if len(self.files) >= self._codes_from else "exact"
        return self._index

    def grow(self, extent: Extent) -> None:
        """Follow the files to where they count now."""
        self.files.grow(extent)
        self._dead = _dead(self.files)
        outgrown = isinstance(
            self._candidates, ApproximateCandidates
        ) and self._candidates.outgrown(self.files)
        if outgrown or self._wanted() != self._name:
            self._name, self._candidates = self._chosen()
        else:
            self._candidates.grow(self.files)

    def close(self) -> None:
        """Let the files go."""
        self.files.close()

    def search(
        self,
        vector: NDArray[np.float32],
        *,
        depth: int,
        candidates: int = 1000,
        mask: NDArray[np.bool_] | None = None,
    ) -> list[tuple[int, float]]:
        """The numbers of the `depth` nearest rows with their inner products, nearest first.

        Args:
            vector: The question, `[dimension]`, of length one.
            depth: How many, at least 1.
            candidates: How many rows an index that is not exact proposes.
            mask: Which rows may be found, `[rows]`; None for all that are alive.
        """
        among = self._among(mask)
        left = len(self.files) if among is None else int(np.count_nonzero(among))
        count = depth if self._name == "exact" else max(candidates, 2 * depth)
        if left <= _FEW or count > _MANY:
            rows = np.arange(len(self.files)) if among is None else np.flatnonzero(among)
        else:
            # The dead take at most as many places as there are of them.
            count += self._dead if among is None else 0
            rows = self._candidates.propose(vector, count=count, among=among)
        return self._ranked(rows[self.files.live[rows]], vector, depth)

    def _among(self, mask: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
        """Which rows to choose among; None for all, where the few dead ones can be passed over."""
        if mask is not None:
            return self.files.live & mask
        return None if self._dead <= _PASSED_OVER else self.files.live

    def _ranked(
        self, rows: NDArray[np.int64], vector: NDArray[np.float32], depth: int
    ) -> list[tuple[int, float]]:
        """The nearest of `rows`, equals by number."""
        blocks = range(0, len(rows), _BLOCK)
        nearest = [self._nearest(rows[at : at + _BLOCK], vector, depth) for at in blocks]
        if not nearest:
            return []
        found, scores = (np.concatenate(each) for each in zip(*nearest, strict=True))
        numbers = self.files.numbers[found]
        order = np.lexsort((numbers, -scores))[:depth]
        return [(int(numbers[i]), float(scores[i])) for i in order]

    def _nearest(
        self, rows: NDArray[np.int64], vector: NDArray[np.float32], depth: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        self._compared.reset()
        self._compared.add_sa_codes(self.files.vectors(rows).view(np.uint8))
        scores, places = self._compared.search(vector[None], min(depth, len(rows)))
        return rows[places[0]], scores[0]


def _dead(files: VectorFiles) -> int:
    return len(files) - int(np.count_nonzero(files.live))
