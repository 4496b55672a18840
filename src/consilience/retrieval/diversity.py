"""Which of the relevant passages to take: not all from one hand, not all saying the same.

Both are retrievers around another one. Neither knows how passages were ranked; the second compares
the vectors that the store keeps anyway.
"""

from collections.abc import Collection, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from consilience.documents import Passage
from consilience.errors import UsageError
from consilience.retrieval.base import Hit, Retriever
from consilience.store import VectorRows, Where

AHEAD = 4
"""Passages looked at for each one that is wanted, to begin with."""


class CappedByContributor:
    """At most so many passages of each contributor, so that none can fill the sum alone.

    The cap is part of the search: what it turns away takes no place, and more is retrieved until
    `k` passages are found or there are no more. A document whose contributor is not known stands
    for itself: its source counts as its contributor.

    Args:
        retriever: Ranks.
        most: Passages of one contributor, at least 1.

    Raises:
        UsageError: `most` is below 1.
    """

    def __init__(self, retriever: Retriever, most: int) -> None:
        if most < 1:
            raise UsageError(
                f"the passages of a contributor must be 1 or more, received {most}",
                hint="leave it out for no limit",
            )
        self._retriever, self._most = retriever, most

    def search(
        self,
        question: str,
        *,
        k: int,
        access: Collection[str] | None = None,
        where: Where | None = None,
    ) -> list[Hit]:
        """The `k` best that the cap lets through; see `Retriever.search`."""
        depth = _ahead(k)
        while True:
            hits = self._retriever.search(question, k=depth, access=access, where=where)
            kept = _capped(hits, self._most)
            if len(kept) >= k or len(hits) < depth:
                return kept[:k]
            depth *= AHEAD


def _ahead(k: int) -> int:
    """How many to begin with; a `k` that is wrong stays what it is, for its error to name."""
    return max(k, k * AHEAD)


def _capped(hits: Sequence[Hit], most: int) -> list[Hit]:
    taken: dict[tuple[bool, str], int] = {}
    kept = []
    for hit in hits:
        name = contributor_of(hit.passage)
        taken[name] = taken.get(name, 0) + 1
        if taken[name] <= most:
            kept.append(hit)
    return kept


def contributor_of(passage: Passage) -> tuple[bool, str]:
    """Who a passage counts for: its contributor, or else its source, which is no contributor."""
    known = bool(passage.contributor)
    return known, passage.contributor if known else passage.source


class StoredVectors(Protocol):
    """Where the vectors of passages lie: a store."""

    def numbers(self, ids: Sequence[str]) -> dict[str, int]:
        """The number of each passage by its id; those that are gone are left out."""
        ...

    def vectors(self, numbers: Sequence[int]) -> VectorRows:
        """Vectors by number."""
        ...


class Diverse:
    """Passages that are relevant and unlike those already taken: maximal marginal relevance.

    One after the other, the passage with the largest

        (1 - l) * relevance(d) - l * max over taken d' of cosine(d, d')

    is taken, where `l` is the diversity, relevance is the score below, brought to 0 … 1 over the
    candidates, and a cosine below 0 counts as 0. The hit's score is this value, which falls from
    hit to hit.

    Use it where the store says many things twice. Do not use it where the best passage alone is
    wanted: the first hit stays the same, whatever `l` is below 1.

    Source: Carbonell and Goldstein, 1998, "The Use of MMR, Diversity-Based Reranking for Reordering
    Documents and Producing Summaries", whose lambda is `1 - l`.

    Args:
        retriever: Proposes the candidates, four times `k`.
        vectors: The store.
        diversity: l, from 0 for relevance alone to 1 for difference alone.

    Raises:
        UsageError: The diversity lies outside of 0 and 1.
    """

    def __init__(self, retriever: Retriever, vectors: StoredVectors, diversity: float) -> None:
        if not 0 <= diversity <= 1:
            raise UsageError(
                f"the diversity must lie between 0 and 1, received {diversity}",
                hint="0 is relevance alone; begin with 0.3",
            )
        self._retriever, self._vectors, self._diversity = retriever, vectors, diversity

    def search(
        self,
        question: str,
        *,
        k: int,
        access: Collection[str] | None = None,
        where: Where | None = None,
    ) -> list[Hit]:
        """The `k` passages taken, in their order; see `Retriever.search`."""
        hits = self._retriever.search(question, k=_ahead(k), access=access, where=where)
        if not hits:
            return []
        likeness = _cosines(self._vectors, [hit.passage.id for hit in hits])
        relevance = scaled(np.array([hit.score for hit in hits]))
        taken = marginal_relevance(relevance, likeness, k=k, diversity=self._diversity)
        return [Hit(hits[place].passage, value) for place, value in taken]


def marginal_relevance(
    relevance: NDArray[np.float64], likeness: NDArray[np.float64], *, k: int, diversity: float
) -> list[tuple[int, float]]:
    """The places taken, in their order, each with its value at that time; see `Diverse`.

    Args:
        relevance: Of each candidate, `[candidates]`.
        likeness: Of each pair of candidates, `[candidates, candidates]`.
        k: How many at most.
        diversity: l, 0 to 1. Equal values go to the earlier place.
    """
    nearest = np.zeros(len(relevance))  # likeness to the nearest of those taken, 0 at least
    left = np.ones(len(relevance), np.bool_)
    taken: list[tuple[int, float]] = []
    while len(taken) < k and left.any():
        values = np.where(left, (1 - diversity) * relevance - diversity * nearest, -np.inf)
        place = int(values.argmax())
        taken.append((place, float(values[place])))
        left[place] = False
        nearest = np.maximum(nearest, likeness[place])
    return taken


def scaled(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores brought to 0 … 1 by the least and the largest, `[n]`; all 1 where they are alike."""
    width = np.ptp(scores)
    return (scores - scores.min()) / width if width > 0 else np.ones_like(scores)


def _cosines(store: StoredVectors, ids: Sequence[str]) -> NDArray[np.float64]:
    """Of every pair, `[ids, ids]`; 0 with a passage that was removed meanwhile."""
    numbers = store.numbers(ids)
    found = store.vectors(list(numbers.values()))
    rows = dict(zip(found.numbers.tolist(), found.vectors.astype(np.float64), strict=True))
    nothing = np.zeros(found.vectors.shape[1])
    vectors = np.stack([rows.get(numbers.get(id_, 0), nothing) for id_ in ids])
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = vectors / np.maximum(lengths, 1e-12)
    likeness: NDArray[np.float64] = units @ units.T
    return likeness
