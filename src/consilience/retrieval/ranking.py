"""From rankings of passage numbers to hits: where an index meets the store's committed rows.

An index is derived and may lag behind; the store may not be contradicted. So a ranker proposes
numbers, and what becomes a hit is decided here by reading each row: a passage that was removed, or
that the reader may not see, never leaves this module, whatever an index says.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from consilience.documents import Passage
from consilience.errors import UsageError
from consilience.retrieval.base import Hit
from consilience.store import Where, visible

Ranking = list[tuple[int, float]]
"""Passage numbers with scores, best first."""

Held = frozenset[str] | None
"""The labels that the reader holds; None means the owner, who reads everything."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which passages may take a place in a ranking.

    Attributes:
        held: The labels that the reader holds; None means the owner.
        where: The documents that are searched; None for all.
    """

    held: Held = None
    where: Where | None = None


EVERYTHING = Scope()


class Ranker(Protocol):
    """An index over the passages of one store, which it follows by itself."""

    def rank(self, question: str, *, depth: int, scope: Scope = EVERYTHING) -> Ranking:
        """The `depth` best passage numbers, fewer only when no more match.

        Passages outside of `scope` take no place in the ranking.
        """
        ...


class PassageSource(Protocol):
    """Where the passages of a ranking are read: a store, or an engine that holds a copy of one."""

    def passages(self, numbers: Sequence[int]) -> dict[int, Passage]:
        """Passages by number, in the order asked for; numbers that are gone are left out."""
        ...


class PassageRetriever:
    """The `Retriever` over any ranker.

    Args:
        source: Where the passages are.
        ranker: What ranks their numbers.
    """

    def __init__(self, source: PassageSource, ranker: Ranker) -> None:
        self._source = source
        self._ranker = ranker

    def search(
        self,
        question: str,
        *,
        k: int,
        access: Collection[str] | None = None,
        where: Where | None = None,
    ) -> list[Hit]:
        """The `k` best passages for `question`; see `Retriever.search`.

        Raises:
            UsageError: An empty question, `k` below 1, or a filter on a field that is not there.
            FingerprintError: The store's vectors have become another encoder's.
            BusyError: Another process is building an index that does not exist yet.
        """
        _require_question(question, k)
        question = question.encode(errors="replace").decode()  # terminals hand on half characters
        scope = Scope(_held(access), where or None)
        depth = k + _SPARE
        while True:
            ranking = self._ranker.rank(question, depth=depth, scope=scope)
            hits = self._hits(ranking[:k], scope.held)
            if len(hits) < k:
                hits += self._hits(ranking[k:], scope.held)
            if len(hits) >= k or len(ranking) < depth:
                return hits[:k]
            depth *= 4

    def _hits(self, ranking: Ranking, held: Held) -> list[Hit]:
        if not ranking:
            return []
        passages = self._source.passages([number for number, _ in ranking])
        return [
            Hit(passages[number], score)
            for number, score in ranking
            if number in passages and visible(passages[number].access, held)
        ]


_SPARE = 8  # ranked beyond k, so that a few removed passages cost no second round


def _held(access: Collection[str] | None) -> Held:
    if access is None:
        return None
    return frozenset({access} if isinstance(access, str) else access)


def _require_question(question: str, k: int) -> None:
    if not any(character.isprintable() and not character.isspace() for character in question):
        raise UsageError(
            f"the question is empty, received {question!r}",
            hint='Ask something: consilience search "opening hours"',
        )
    if k < 1:
        raise UsageError(f"k must be 1 or more, received {k}", hint="Leave k out, or ask for 5.")
