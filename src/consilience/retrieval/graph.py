"""Ranking where there are knowledge graphs: what a question names, and what that leads to.

A ranker finds passages by their words or their meaning; this one adds what it cannot know. Things
that a question calls by name are found in the dictionary of `links`, and the passages about them,
and about the things these lead on to, are given a share of the score. The rest of the question says
which of them: a link is worth more the more of it the passage holds, or the property that led
there. Where nothing is named, or no document is from a graph, the ranking is the other ranker's,
number for number.

A passage outside of the scope is neither proposed nor followed, and no name that it gives counts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from consilience.documents import Passage
from consilience.errors import UsageError
from consilience.retrieval.hybrid import DEPTH
from consilience.retrieval.links import LinkIndex, Mention, normal
from consilience.retrieval.ranking import EVERYTHING, Ranker, Ranking, Scope
from consilience.store import Store, visible
from consilience.text import analyze, analyze_question

MOST = 256
"""Passages that are looked at in each step; a name that many things share has no more."""

Tokens = frozenset[str]


@dataclass(frozen=True, slots=True)
class LinkWeights:
    """How far names are trusted; all between 0 and 1.

    Attributes:
        share: Of the score that comes from links; the rest is the other ranker's.
        steps: What a passage is worth by the number of things on the way to it.
        fit: How much of its worth depends on the rest of the question.
        bare: What a name is worth without the explanation in brackets that belongs to it.
    """

    share: float = 0.6
    steps: tuple[float, ...] = (1.0, 0.9)
    fit: float = 0.6
    bare: float = 0.95

    def __post_init__(self) -> None:
        if not all(0 <= number <= 1 for number in (self.share, *self.steps, self.fit, self.bare)):
            raise UsageError(
                f"weights of links must lie between 0 and 1, received {self}",
                hint="Leave them out for those that were measured.",
            )


MEASURED = LinkWeights()
"""What did well on questions about three graphs (`docs/benchmarks/graphs.md`)."""


@dataclass(slots=True)
class _Found:
    """What was found on the way from what a question names.

    Attributes:
        rest: The tokens of the question without its names.
        worth: Of each passage, 0 to 1.
        been: The things that were looked at.
        ways: By the title of a thing, the tokens of the properties that led to it.
    """

    rest: Tokens
    worth: dict[int, float] = field(default_factory=dict)
    been: set[int] = field(default_factory=set)
    ways: dict[str, Tokens] = field(default_factory=dict)


class LinkedRanker:
    """A `Ranker` that adds links to another. Threads may share it.

    Args:
        store: The store whose passages both rank.
        ranker: Ranks without links.
        weights: How far links are trusted.
    """

    def __init__(self, store: Store, ranker: Ranker, *, weights: LinkWeights = MEASURED) -> None:
        self._store = store
        self._ranker = ranker
        self._weights = weights
        self._links = LinkIndex(store)

    def rank(self, question: str, *, depth: int, scope: Scope = EVERYTHING) -> Ranking:
        """The passages of the other ranker and those that the question leads to, best first."""
        linked = self._linked(question, scope) if self._links.follow() else {}
        if not linked:
            return self._ranker.rank(question, depth=depth, scope=scope)
        ranking = self._ranker.rank(question, depth=max(depth, DEPTH), scope=scope)
        return add_links(ranking, linked, share=self._weights.share)[:depth]

    def _linked(self, question: str, scope: Scope) -> dict[int, float]:
        """What every passage that the question leads to is worth, 0 to 1."""
        asked = normal(question)
        mentions = [
            m for m in self._links.mentions(asked) if says_something(asked[m.start : m.end])
        ]
        known = self._in_scope((mention.number for mention in mentions), scope)
        chosen = longest([mention for mention in mentions if mention.number in known])
        found = _Found(frozenset(analyze_question(without(asked, chosen))))
        things = self._named(chosen)
        for step in self._weights.steps:
            things = self._take_step(things, step, found, scope)
        return found.worth

    def _named(self, chosen: Sequence[Mention]) -> dict[int, float]:
        """What each named thing is worth: the longest name most."""
        most = max((mention.length for mention in chosen), default=1)
        values = (
            (m.entity, m.length / most * (self._weights.bare if m.bare else 1.0)) for m in chosen
        )
        return _best(values)

    def _take_step(
        self, things: Mapping[int, float], step: float, found: _Found, scope: Scope
    ) -> dict[int, float]:
        """Value the passages about some things; the things these lead on to, as they are worth."""
        found.been |= things.keys()
        about = _best(
            (number, things[thing])
            for thing, numbers in self._links.passages(things).items()
            for number in numbers
        )
        passages = self._in_scope(about, scope)
        for number, passage in passages.items():
            fit = 1 - self._weights.fit * (1 - _fit(passage, found))
            found.worth[number] = max(found.worth.get(number, 0.0), step * about[number] * fit)
        for passage in passages.values():
            _note_ways(passage, found)
        return _best(
            (thing, about[number])
            for number, aims in self._links.aims(passages).items()
            for thing in aims
            if thing not in found.been
        )

    def _in_scope(self, numbers: Iterable[int], scope: Scope) -> dict[int, Passage]:
        """Those of some passages that are there and may be seen, in order, `MOST` or few more."""
        wanted = np.array([*dict.fromkeys(numbers)], dtype=np.int64)
        if scope.where is not None:
            wanted = wanted[np.isin(wanted, self._store.matching(scope.where))]
        found: dict[int, Passage] = {}
        for start in range(0, len(wanted), MOST):
            passages = self._store.passages(wanted[start : start + MOST].tolist())
            found |= {n: p for n, p in passages.items() if visible(p.access, scope.held)}
            if len(found) >= MOST:
                break
        return found


def add_links(ranking: Ranking, linked: Mapping[int, float], *, share: float) -> Ranking:
    """A ranking with links: `(1 - share) * score + share * best * worth`, on the ranking's scale.

    Scores are counted from 0, or from the least where that lies below, as cosines may.

    Args:
        ranking: Numbers and scores of another ranker; a passage that it lacks has the least.
        linked: What passages are worth, 0 to 1.
        share: Of the score that comes from links.
    """
    scores = dict(ranking)
    least = min([0.0, *scores.values()])
    best = max((score - least for score in scores.values()), default=0.0) or 1.0
    mixed = [
        (n, (1 - share) * (scores.get(n, least) - least) + share * best * linked.get(n, 0.0))
        for n in scores.keys() | linked.keys()
    ]
    return sorted(((n, s + least) for n, s in mixed), key=lambda ranked: (-ranked[1], ranked[0]))


def longest(mentions: Sequence[Mention]) -> list[Mention]:
    """The mentions of the longest names; of stretches that overlap only the longer one."""
    taken: list[tuple[int, int]] = []
    chosen = []
    for mention in sorted(mentions, key=lambda m: (-m.length, m.start, m.bare)):
        span = (mention.start, mention.end)
        if span not in taken and any(mention.start < b and a < mention.end for a, b in taken):
            continue
        taken.append(span)
        chosen.append(mention)
    return chosen


def without(question: str, mentions: Iterable[Mention]) -> str:
    """A question with blanks in the places of names, so that no token reaches across them."""
    characters = [*question]
    for mention in mentions:
        characters[mention.start : mention.end] = " " * mention.length
    return "".join(characters)


def says_something(name: str) -> bool:
    """Whether a name is more than words of the kind that every question has, as 什么 and `who`."""
    return set(analyze_question(f"0 {name}")) > {"0"}


def _best(values: Iterable[tuple[int, float]]) -> dict[int, float]:
    found: dict[int, float] = {}
    for key, value in values:
        found[key] = max(found.get(key, 0.0), value)
    return found


def _fit(passage: Passage, found: _Found) -> float:
    """The share of the rest of the question that a passage holds, or the way to it."""
    if not found.rest:
        return 1.0
    held = found.rest & (found.ways.get(passage.title, frozenset()) | {*analyze(passage.text)})
    return len(held) / len(found.rest)


def _note_ways(passage: Passage, found: _Found) -> None:
    """Remember by which properties a passage leads to what its lines name."""
    before = found.ways.get(passage.title, frozenset())
    for line in passage.text.split("\n"):
        name, _, value = line.partition(": ")
        if value:
            ways = found.ways.get(value, frozenset()) | before | {*analyze(name)}
            found.ways[value] = ways & found.rest
