"""Hybrid retrieval: BM25 and dense scores, brought to one scale and added.

Reciprocal ranks with the customary constant of 60 measured worse than BM25 alone; scores say more
than ranks (`docs/benchmarks/retrieval.md`). How far the dense half is to be trusted depends on what
its encoder has learned, hence a weight for each language.
"""

from dataclasses import dataclass

from consilience.errors import UsageError
from consilience.retrieval.ranking import EVERYTHING, Ranker, Ranking, Scope
from consilience.text import language_of

DEPTH = 100
"""How many candidates each half brings at least."""


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


def fuse(lexical: Ranking, dense: Ranking, *, share: float) -> Ranking:
    """Two rankings as one: `(1 - share) * lexical + share * dense`, each scaled to 0 … 1.

    A half's best candidate has 1 and its worst 0. A candidate that one half did not bring counts
    as that half's worst, which is an upper bound of what it would have had. Where one half brings
    nothing the other decides alone.

    Args:
        lexical: Numbers and scores by words.
        dense: Numbers and scores by vectors.
        share: The weight of `dense`, 0 to 1.
    """
    scaled_lexical, scaled_dense = _scaled(lexical), _scaled(dense)
    numbers = scaled_lexical.keys() | scaled_dense.keys()
    fused = [
        (n, (1 - share) * scaled_lexical.get(n, 0.0) + share * scaled_dense.get(n, 0.0))
        for n in numbers
    ]
    return sorted(fused, key=lambda ranked: (-ranked[1], ranked[0]))


def _scaled(ranking: Ranking) -> dict[int, float]:
    if not ranking:
        return {}
    scores = [score for _, score in ranking]
    low, width = min(scores), max(scores) - min(scores)
    return {number: (score - low) / width if width else 1.0 for number, score in ranking}
