"""The prior of hybrid search inside a training run: both halves, and a share between them to learn.

    s(d) = (1 - w) * scaled(BM25(x, d)) + w * scaled(<q(x), d>),   p(d | x) = softmax(s / t)

`w` has one value for each language of a question. The candidates and the scale are those of
`retrieval.hybrid`, so what is learned is what a search of the store with these shares does; links
of knowledge graphs, which come after it, are left out. Gradients reach `w`, the temperature `t`
and, through the dense half, the encoders.

A share is a number from 0 to 1 itself, not the logit of one: 0, which leaves the encoder out, is
where some languages begin, and no logit could leave it. Steps that lead out of the range are taken
back before the share is used.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from consilience.retrieval import HybridWeights
from consilience.retrieval.hybrid import DEPTH
from consilience.retrieval.learned_fusion import fuse_scores
from consilience.retrieval.ranking import Ranker
from consilience.store import Store
from consilience.text import language_of
from consilience.training.proposals import PassageIndex

ABSENT = float("-inf")
LANGUAGES = tuple(field.name for field in fields(HybridWeights))

ByWords = Callable[[Sequence[str], int], Sequence[Mapping[int, float]]]
"""BM25 of so many passages of each question, the best, by their places in the index."""


class WordHalf:
    """The lexical half of hybrid search; what it found is kept until the index is read anew.

    Args:
        store: What is searched.
        index: Whose places are told.
        ranker: Ranks by words.
    """

    def __init__(self, store: Store, index: PassageIndex, ranker: Ranker) -> None:
        self._store, self._index, self._ranker = store, index, ranker
        self._known: dict[tuple[str, int], Mapping[int, float]] = {}
        self._generation = index.generation

    def __call__(self, questions: Sequence[str], depth: int) -> list[Mapping[int, float]]:
        """Scores by place, of each question."""
        if self._generation != self._index.generation:
            self._known, self._generation = {}, self._index.generation
        for question in questions:
            if (question, depth) not in self._known:
                self._known[question, depth] = self._ranked(question, depth)
        return [self._known[question, depth] for question in questions]

    def _ranked(self, question: str, depth: int) -> dict[int, float]:
        ranking = dict(self._ranker.rank(question, depth=depth))
        # By name: a store that is embedded anew has other numbers for the same passages.
        found = self._store.passages(list(ranking))
        places = {number: self._index.place(passage.id) for number, passage in found.items()}
        return {place: ranking[n] for n, place in places.items() if place is not None}


class LearnedShares(nn.Module):
    """The dense half's share for each language, as parameters.

    Args:
        start: The shares to begin with.
    """

    def __init__(self, start: HybridWeights) -> None:
        super().__init__()
        self._start = start
        # Numbers without dimensions, as every process of several has them whole.
        for name in LANGUAGES:
            self.register_parameter(name, nn.Parameter(torch.tensor(float(getattr(start, name)))))

    def forward(self, questions: Sequence[str]) -> Tensor:
        """The share of each question, `[b, 1]`, float32."""
        for name in LANGUAGES:
            self.get_parameter(name).data.clamp_(0.0, 1.0)
        every = torch.stack([self.get_parameter(name) for name in LANGUAGES])
        places = [LANGUAGES.index(language_of(one) or "other") for one in questions]
        return every[torch.tensor(places, device=every.device), None]

    @property
    def weights(self) -> HybridWeights:
        """The shares as a search takes them; one that did not move is spelled as it was."""
        return HybridWeights(**{name: self._value(name) for name in LANGUAGES})

    def _value(self, name: str) -> float:
        now, start = self.get_parameter(name).detach().cpu(), float(getattr(self._start, name))
        moved = bool(now != torch.tensor(start))
        return min(max(round(float(now), 6), 0.0), 1.0) if moved else start

    def told(self) -> dict[str, float]:
        """The shares, for a log."""
        return {f"share_{name}": self._value(name) for name in LANGUAGES}


@dataclass(frozen=True, slots=True)
class Halves:
    """The candidates of a batch.

    Attributes:
        places: In the index, ascending, `[b, c]`; -1 where there are fewer.
        lexical: BM25, `[b, c]`; minus infinity where words did not bring it.
        near: True where vectors brought it, `[b, c]`.
    """

    places: Tensor
    lexical: Tensor
    near: Tensor


@dataclass(frozen=True, slots=True)
class Candidates:
    """What hybrid search makes of a batch.

    Attributes:
        halves: The candidates.
        products: `<q(x), d>` with the vectors of the index, `[b, c]`.
        share: The dense half's, `[b, 1]`.
    """

    halves: Halves
    products: Tensor
    share: Tensor

    def columns(self, k: int) -> Tensor:
        """Where the `k` best candidates are, `[b, k]`."""
        return best(fused(self.halves, self.products, self.share), k)

    def places(self, k: int) -> Tensor:
        """The `k` best candidates, `[b, k]` places, -1 for none."""
        return self.halves.places.gather(1, self.columns(k))

    def scores(self, k: int, anew: Tensor | None = None) -> Tensor:
        """Of the `k` best, with gradient, `[b, k]`; minus infinity where there is none.

        Args:
            k: How many.
            anew: `<q(x), d>` of these with other vectors than those of the index, `[b, k]`.
        """
        columns, products = self.columns(k).to(self.products.device), self.products
        if anew is not None:
            products = products.scatter(1, columns, anew)
        return fused(self.halves, products, self.share).gather(1, columns)


def depth_of(k: int) -> int:
    """How many candidates each half brings."""
    return max(k, DEPTH)


def united(by_words: Sequence[Mapping[int, float]], nearest: Tensor, *, least: int) -> Halves:
    """The candidates of both halves.

    Args:
        by_words: Scores by place, of each question.
        nearest: Places that vectors brought, `[b, n]`, -1 for none.
        least: How many columns there are at least.
    """
    near = [{place for place in row if place >= 0} for row in nearest.tolist()]
    rows = [sorted(own.keys() | other) for own, other in zip(by_words, near, strict=True)]
    width = max(least, *map(len, rows))
    padded = [[*row, *[-1] * (width - len(row))] for row in rows]
    scores = [
        [own.get(place, ABSENT) for place in row] for own, row in zip(by_words, padded, strict=True)
    ]
    brought = [[place in own for place in row] for own, row in zip(near, padded, strict=True)]
    return Halves(torch.tensor(padded), torch.tensor(scores), torch.tensor(brought))


def fused(halves: Halves, products: Tensor, share: Tensor) -> Tensor:
    """The hybrid score of every candidate.

    Args:
        halves: The candidates.
        products: `<q(x), d>`, `[b, c]`, whatever it is where vectors did not bring one.
        share: `[b, 1]`.

    Returns:
        `[b, c]`, float32, from 0 to 1; minus infinity where there is no candidate.
    """
    dense = products.float().masked_fill(~halves.near.to(products.device), ABSENT)
    return fuse_scores(halves.lexical.to(products.device), dense, share.to(products.device))


def best(scores: Tensor, k: int) -> Tensor:
    """The columns of the `k` best, `[b, k]`; of equal ones the first."""
    order = scores.detach().cpu().sort(dim=1, descending=True, stable=True).indices
    return order[:, :k]
