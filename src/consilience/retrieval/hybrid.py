"""Hybrid retrieval: BM25 and dense scores, brought to one scale and added.

Reciprocal ranks with the customary constant of 60 measured worse than BM25 alone; scores say more
than ranks (`docs/benchmarks/retrieval.md`). They are the way out for engines that give none, with a
smaller constant. How far the dense half is to be trusted depends on what its encoder has learned,
hence a weight for each language.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from typing import Literal, Protocol

from consilience.errors import UsageError
from consilience.retrieval.ranking import EVERYTHING, Ranker, Ranking, Scope
from consilience.text import language_of

DEPTH = 100
"""How many candidates each half brings at least."""

RANK_CONSTANT = 10
"""Added to every rank before its reciprocal is taken; the smaller, the more the first ranks count.
The customary 60 put the right passage first less often than BM25 alone, 10 about as often."""

Scale = Literal["scores", "ranks"]
"""What of a ranking is brought to one scale: its scores, or its ranks where there are none."""


@dataclass(frozen=True, slots=True)
class HybridWeights:
    """The share of the dense half in the sum, by the language of the question; the rest is BM25's.

    Attributes:
        zh: For Chinese questions. 0 leaves the encoder out altogether.
        en: For English questions.
        other: For all others.
    """

    zh: float = 0.0
    en: float = 0.4
    other: float = 0.4

    def __post_init__(self) -> None:
        shares = (self.zh, self.en, self.other)
        if not all(0 <= share <= 1 for share in shares):
            raise UsageError(
                f"hybrid weights must lie between 0 and 1, received {self}",
                hint="0 is BM25 alone, 1 is dense alone.",
            )

    def for_question(self, question: str) -> float:
        """The dense half's share for this question."""
        return {"zh": self.zh, "en": self.en, "": self.other}[language_of(question)]


class HybridRanker:
    """A `Ranker` by the weighted sum of two others.

    Args:
        lexical: Ranks by words.
        dense: Ranks by vectors.
        weights: The dense half's share.
    """

    def __init__(self, lexical: Ranker, dense: Ranker, weights: HybridWeights) -> None:
        self._lexical = lexical
        self._dense = dense
        self._weights = weights

    def rank(self, question: str, *, depth: int, scope: Scope = EVERYTHING) -> Ranking:
        """The candidates of both halves by their fused score, which lies between 0 and 1."""
        share = self._weights.for_question(question)
        candidates = max(depth, DEPTH)
        lexical = self._lexical.rank(question, depth=candidates, scope=scope) if share < 1 else []
        dense = self._dense.rank(question, depth=candidates, scope=scope) if share > 0 else []
        return fuse(lexical, dense, share=share)[:depth]


def fuse(lexical: Ranking, dense: Ranking, *, share: float, scale: Scale | None = None) -> Ranking:
    """Two rankings as one: `(1 - share) * lexical + share * dense`, each scaled to 0 … 1.

    By scores, a half's best candidate has 1 and its worst 0. A candidate that one half did not
    bring counts as that half's worst, which is an upper bound of what it would have had. Where one
    half brings nothing the other decides alone. By ranks, see `by_ranks`.

    Args:
        lexical: Numbers and scores by words; NaN from an engine that gives no scores.
        dense: Numbers and scores by vectors, likewise.
        share: The weight of `dense`, 0 to 1.
        scale: What counts; None for scores where both halves have them, else ranks.
    """
    scaled = SCALES[scale or ("scores" if _scored(lexical) and _scored(dense) else "ranks")]
    by_words, by_vectors = scaled(lexical), scaled(dense)
    fused = [
        (n, (1 - share) * by_words.get(n, 0.0) + share * by_vectors.get(n, 0.0))
        for n in by_words.keys() | by_vectors.keys()
    ]
    return sorted(fused, key=lambda ranked: (-ranked[1], ranked[0]))


def by_scores(ranking: Ranking) -> dict[int, float]:
    """Scores brought to 0 … 1 by the least and the largest of them."""
    if not ranking:
        return {}
    scores = [score for _, score in ranking]
    low, width = min(scores), max(scores) - min(scores)
    return {number: (score - low) / width if width else 1.0 for number, score in ranking}


def by_ranks(ranking: Ranking) -> dict[int, float]:
    """`(1 + c) / (rank + c)`, c being `RANK_CONSTANT`: 1 for the first, and never quite 0.

    Source: Cormack et al., 2009, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
    Learning Methods", there with c = 60 and without the factor.
    """
    first = 1 + RANK_CONSTANT
    return {n: first / (rank + RANK_CONSTANT) for rank, (n, _) in enumerate(ranking, start=1)}


class _Scaled(Protocol):
    """Brings a ranking to 0 … 1."""

    def __call__(self, ranking: Ranking, /) -> dict[int, float]: ...


SCALES: Mapping[Scale, _Scaled] = {"scores": by_scores, "ranks": by_ranks}
"""The closed table of scales."""


def _scored(ranking: Ranking) -> bool:
    return not any(isnan(score) for _, score in ranking)
