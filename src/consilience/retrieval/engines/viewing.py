"""One commit of a copy, whichever server holds it.

What every engine answers alike is here: that a copy without passages is not asked, which vectors
can be compared, which of two passages with one score comes first, and in which order rows are
handed on. How a server is asked for its entries is for those who speak its language.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from consilience.documents import Passage
from consilience.errors import UsageError
from consilience.retrieval.engines.base import Conditions, Published, Vector, conditions_of
from consilience.retrieval.ranking import Ranking, Scope
from consilience.store import VectorRows


class Entries(Protocol):
    """The entries of one commit, as their server is asked for them. Rows may come in any order."""

    def by_words(
        self, tokens: Mapping[str, int], depth: int, conditions: Conditions
    ) -> Iterable[tuple[int, float]]:
        """Numbers of the `depth` best by BM25 with their scores; there is at least one token."""
        ...

    def nearest(
        self, vector: Vector, depth: int, conditions: Conditions
    ) -> Iterable[tuple[int, float]]:
        """Numbers of the `depth` nearest with their inner products; the vector is `[dimension]`."""
        ...

    def passages(self, numbers: Sequence[int]) -> Iterable[tuple[int, Passage]]:
        """Those that are there of some numbers."""
        ...

    def numbers(self, ids: Sequence[str]) -> Iterable[tuple[str, int]]:
        """Ids of passages that are there, each with its number."""
        ...

    def vectors(self, numbers: Sequence[int]) -> Iterable[tuple[int, NDArray[np.float16]]]:
        """Vectors that are there of some numbers, `[dimension]` each."""
        ...


class CommitView:
    """A `View` of the entries of one commit.

    Args:
        entries: What the server holds of it.
        state: Which commit it is.
    """

    def __init__(self, entries: Entries, state: Published) -> None:
        self._entries = entries
        self._state = state

    @property
    def state(self) -> Published:
        """Which commit it is."""
        return self._state

    def rank_lexical(self, tokens: Mapping[str, int], *, depth: int, scope: Scope) -> Ranking:
        """The best passages by BM25; see `View.rank_lexical`."""
        if not tokens or not self._state.passages:
            return []
        return _best_first(self._entries.by_words(tokens, depth, conditions_of(scope)))

    def rank_dense(self, vector: Vector, *, depth: int, scope: Scope) -> Ranking:
        """The nearest passages by inner product; see `View.rank_dense`.

        Raises:
            UsageError: The vector has another length than the copy's, or numbers that are none.
        """
        if not self._state.passages:
            return []
        _require_vector(vector, self._state.dimension)
        return _best_first(self._entries.nearest(vector, depth, conditions_of(scope)))

    def passages(self, numbers: Sequence[int]) -> dict[int, Passage]:
        """Passages by number; see `View.passages`."""
        wanted = [int(number) for number in numbers]
        found = dict(self._entries.passages(wanted))
        return {number: found[number] for number in wanted if number in found}

    def numbers(self, ids: Sequence[str]) -> dict[str, int]:
        """The number of each passage by its id; see `View.numbers`."""
        return dict(self._entries.numbers(list(ids)))

    def vectors(self, numbers: Sequence[int]) -> VectorRows:
        """Vectors by number; see `View.vectors`."""
        found = dict(self._entries.vectors([int(number) for number in numbers]))
        order = sorted(found)
        rows = np.array([found[number] for number in order], np.float16)
        return VectorRows(
            np.array(order, np.int64), rows.reshape(len(order), self._state.dimension)
        )


def _best_first(found: Iterable[tuple[int, float]]) -> Ranking:
    return sorted(found, key=lambda ranked: (-ranked[1], ranked[0]))


def _require_vector(vector: Vector, dimension: int) -> None:
    """Refuse what cannot be compared with the vectors of a copy."""
    if vector.shape != (dimension,) or not np.isfinite(vector).all():
        raise UsageError(
            f"the question's vector is not {dimension} finite numbers, received shape "
            f"{vector.shape}",
            hint="Check the encoder's encode_questions.",
        )
