"""BM25 over postings, with every number of the formula free when a question is asked.

    score(q, d) = sum over t in q of  idf(t) * (k1 + 1) * tf / (tf + k1 * (1 - b + b * len / avg))
    idf(t) = ln(1 + (N - n + 1/2) / (n + 1/2))

`tf` and `len` are those of the text plus `title` times those of the title; N, n and avg count the
passages that are there, so a removed passage changes the scores of the others as if it had never
been. Source: Robertson and Zaragoza, 2009, "The Probabilistic Relevance Framework: BM25 and
Beyond", with the title as in their BM25F and the idf of Lucene, which is never negative.

A passage that may not be found has an infinite length here and so scores nothing: one rule for
removed passages, access labels and filters. Rare terms are scored first; as soon as those still to
come cannot lift a passage that has none of the rare ones among the best, they are only looked up in
the few that are left. What is found is exactly what scoring everything would find. Source: Turtle
and Flood, 1995, "Query evaluation: strategies and optimizations".
"""

import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import repeat
from math import log1p
from operator import attrgetter
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from consilience.retrieval.postings import Segment, starts_of, term_keys
from consilience.retrieval.ranking import Held, Ranking
from consilience.store import visible

Lengths = NDArray[np.float32]
"""`k1 * (1 - b + b * len / avg)` of every row, `[rows]`; infinite for those not to be found."""

_COMMON = (8, 0)  # terms that more than one row in 8 has are left for the end, if that will do
_SAMPLE, _SAMPLE_DEPTH = 512, 4  # rows of which the best say what the best of all have at least
_SLACK = 1.0001  # so that no rounding of sums decides
_SMALLEST = float(np.finfo(np.float32).tiny)
_KNOWN = 4096  # terms whose weights and postings are remembered
_SCOPES = 8  # scopes whose lengths are remembered
_NO_ROWS, _NO_SCORES = np.empty(0, np.int64), np.empty(0, np.float32)


class Numbers(Protocol):
    """The free numbers of the formula; `Tuning` has them."""

    @property
    def k1(self) -> float: ...  # noqa: D102
    @property
    def b(self) -> float: ...  # noqa: D102
    @property
    def title(self) -> float: ...  # noqa: D102


class Collection:
    """Segments one after another: rows count through, and some passages are gone.

    Args:
        segments: In the order of their passages' numbers.
        dead: The numbers of those that are gone, ascending, `[n]`.
    """

    def __init__(self, segments: Sequence[Segment], dead: NDArray[np.int64]) -> None:
        self.segments = tuple(segments)
        self.dead = dead
        self.offsets: list[int] = starts_of(np.array([*map(len, segments)], np.int64)).tolist()

    @property
    def rows(self) -> int:
        """How many rows there are, dead ones among them."""
        return self.offsets[-1]

    def __len__(self) -> int:
        """How many passages are there."""
        return self.rows - len(self.dead)

    @cached_property
    def numbers(self) -> NDArray[np.int64]:
        """The number of every row, int64, `[rows]`, ascending."""
        return np.concatenate([np.empty(0, np.int64), *(s.numbers for s in self.segments)])

    @cached_property
    def dead_rows(self) -> NDArray[np.int64]:
        """The rows of those that are gone, ascending."""
        return self.rows_of(self.dead)

    def dead_in(self, place: int) -> NDArray[np.uint32]:
        """The same for one segment, as rows in it."""
        begin, end = self.dead_rows.searchsorted(self.offsets[place : place + 2])
        return (self.dead_rows[begin:end] - self.offsets[place]).astype(np.uint32)

    def lengths(self, title: float) -> NDArray[np.float32]:
        """Tokens of every row's text, and `title` times those of its title, `[rows]`."""
        lengths = [_weighted(s.lengths, title) for s in self.segments]
        return np.concatenate([np.empty(0, np.float32), *lengths])

    def rows_of(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of those of the numbers that have one."""
        places = np.searchsorted(self.numbers, numbers)
        places = places[places < self.rows]
        found: NDArray[np.int64] = places[np.isin(self.numbers[places], numbers)]
        return found

    def readable(self, held: Held) -> NDArray[np.bool_]:
        """Which rows the reader may see, `[rows]`."""
        kinds = [
            np.array([visible(labels, held) for labels in s.labels], np.bool_)[s.kinds]
            for s in self.segments
        ]
        return np.concatenate([np.empty(0, np.bool_), *kinds])


class Bm25:
    """The scores of one state of a collection with one set of numbers. Threads may share it.

    Args:
        collection: What is searched.
        numbers: k1, b and what a title is worth.
    """

    def __init__(self, collection: Collection, numbers: Numbers) -> None:
        self._collection = collection
        self._factor = numbers.k1 + 1
        self._frequencies = [_weighted(s.pairs, numbers.title) for s in collection.segments]
        self._lengths = _scaled(collection, numbers)
        self._dead = [collection.dead_in(place) for place in range(len(collection.segments))]
        self._known: dict[str, _Term] = {}
        self._scopes: dict[tuple[Held, int], tuple[NDArray[np.int64] | None, Lengths]] = {}
        self._scratch = _Scratch(collection.rows)

    def search(
        self,
        terms: Mapping[str, int],
        *,
        depth: int,
        held: Held = None,
        chosen: NDArray[np.int64] | None = None,
    ) -> Ranking:
        """The `depth` best passages, best first, of equal ones the older first.

        Args:
            terms: Of the question, with how often each stands in it.
            depth: How many passages at most, at least 1.
            held: The labels of the reader; None for the owner.
            chosen: The numbers among which is searched, ascending; None for all.
        """
        rows, scores = self._scored(self._wanted(terms), self._within(held, chosen), depth)
        found = np.flatnonzero(scores >= _least(scores, depth))
        best = found[np.lexsort((rows[found], -scores[found]))[:depth]]
        numbers = self._collection.numbers[rows[best]]
        return list(zip(numbers.tolist(), scores[best].tolist(), strict=True))

    def _wanted(self, terms: Mapping[str, int]) -> "list[_Term]":
        """The terms that there are, the rarest first."""
        known = self._known
        if missing := [term for term in terms if term not in known]:
            known.update(self._looked_up(missing))
            if len(known) > _KNOWN:
                self._known = {}  # not emptied: other threads may be reading it
        found = [(known[term], count) for term, count in terms.items()]
        there = [
            term if count == 1 else term._replace(limit=count * term.limit)
            for term, count in found
            if term.postings
        ]
        return sorted(there, key=attrgetter("postings"))

    def _looked_up(self, terms: Sequence[str]) -> "dict[str, _Term]":
        """What there is of each term."""
        keys = term_keys(terms)
        found = [_blocks(segment, keys) for segment in self._collection.segments]
        blocks = zip(*found, strict=True) if found else repeat(())
        return {term: self._term(own) for term, own in zip(terms, blocks, strict=False)}

    def _term(self, blocks: "tuple[_Block, ...]") -> "_Term":
        """A term by where its postings are in each segment."""
        there = sum(self._there(place, block) for place, block in enumerate(blocks))
        idf = log1p((len(self._collection) - there + 0.5) / (there + 0.5))
        return _Term(there, blocks, self._factor * idf)

    def _there(self, place: int, block: "_Block") -> int:
        """How many of a block's postings are of passages that are there."""
        dead = self._dead[place]
        gone = _shared(self._collection.segments[place].rows[slice(*block)], dead)
        return block[1] - block[0] - gone

    def _scored(self, terms: "Sequence[_Term]", lengths: Lengths, depth: int) -> "_Scored":
        """Rows among which the best are."""
        for share in _COMMON:
            rare = sum(term.postings * share <= self._collection.rows for term in terms)
            rest = _SLACK * sum(term.limit for term in terms[rare:])
            found = self._candidates(terms[:rare], lengths, depth=depth, rest=rest)
            if found:
                break
        rows, scores = found or (_NO_ROWS, _NO_SCORES)
        for place in range(len(self._collection.segments)):
            self._complete(place, terms[rare:], lengths, rows, scores)
        return rows, scores

    def _candidates(
        self, terms: "Sequence[_Term]", lengths: Lengths, *, depth: int, rest: float
    ) -> "_Scored | None":
        """The rows that may be among the best once terms that add up to `rest` are added to these.

        None where rows that have none of these terms may be.
        """
        sums = self._scratch.take()
        rows = self._add(terms, lengths, sums)
        scores = sums[rows]
        sample = _distinct(rows[: _SAMPLE + _SAMPLE_DEPTH * depth].copy())
        least = _least(sums[sample], depth)
        best = _distinct(rows[scores >= max((least - rest) / _SLACK, _SMALLEST)])
        scores = sums[best]
        sums[rows] = 0
        self._scratch.give(sums)
        if rest and least <= rest:
            return None
        stay = scores >= (_least(scores, depth) - rest) / _SLACK
        return best[stay], scores[stay]

    def _add(
        self, terms: "Sequence[_Term]", lengths: Lengths, sums: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        """Add the scores of some terms to `sums`; the rows that have them, once for each term."""
        found = []
        limits = np.array([term.limit for term in terms], np.float32)
        for place, segment in enumerate(self._collection.segments if terms else ()):
            runs = [slice(*term.blocks[place]) for term in terms]
            rows = np.concatenate([segment.rows[run] for run in runs]).astype(np.int64)
            rows += self._collection.offsets[place]
            forms = np.concatenate([segment.forms[run] for run in runs])
            shares = self._frequencies[place][forms]
            shares /= shares + lengths[rows]
            shares *= np.repeat(limits, [run.stop - run.start for run in runs])
            np.add.at(sums, rows, shares)
            found.append(rows)
        return found[0] if len(found) == 1 else np.concatenate([_NO_ROWS, *found])

    def _complete(
        self,
        place: int,
        terms: "Sequence[_Term]",
        lengths: Lengths,
        rows: NDArray[np.int64],
        scores: NDArray[np.float32],
    ) -> None:
        """Add the scores of common terms to those of the rows that are in one segment."""
        offsets = self._collection.offsets[place : place + 2]
        own = slice(*rows.searchsorted(offsets).tolist())
        within, length, sums = rows[own] - offsets[0], lengths[rows[own]], scores[own]
        segment, frequencies = self._collection.segments[place], self._frequencies[place]
        for term in terms:
            begin, end = term.blocks[place]
            if begin == end:
                continue
            shares = frequencies[segment.forms_by_row(begin, end)[within]]
            shares /= shares + length
            shares *= np.float32(term.limit)
            sums += shares

    def _within(self, held: Held, chosen: NDArray[np.int64] | None) -> Lengths:
        """The lengths with which only passages of a scope are found."""
        if held is None and chosen is None:
            return self._lengths
        kept = self._scopes.get((held, id(chosen)))
        if kept is None or kept[0] is not chosen:
            kept = (chosen, self._confined(held, chosen))
            # Replaced, not changed: other threads may be reading it.
            self._scopes = dict([*self._scopes.items()][1 - _SCOPES :]) | {(held, id(chosen)): kept}
        return kept[1]

    def _confined(self, held: Held, chosen: NDArray[np.int64] | None) -> Lengths:
        lengths = self._lengths.copy()
        if held is not None:
            lengths[~self._collection.readable(held)] = np.inf
        if chosen is not None:
            outside = np.ones(len(lengths), np.bool_)
            outside[self._collection.rows_of(chosen)] = False
            lengths[outside] = np.inf
        return lengths


_Scored = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Rows, ascending, and their scores."""


_Block = tuple[int, int]
"""Where the postings of a term begin and end in a segment; 0 and 0 where it has none."""


class _Term(NamedTuple):
    """A term of a question.

    Attributes:
        postings: How many passages have it.
        blocks: Where its postings are in each segment.
        limit: What it adds to a score at most: `(k1 + 1) * idf`, as often as it is asked for.
    """

    postings: int
    blocks: "tuple[_Block, ...]"
    limit: float


class _Scratch(threading.local):
    """An array of zeros for each thread, made once.

    It is handed out and given back, so that one whose user failed is never used again.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._zeros: NDArray[np.float32] | None = None

    def take(self) -> NDArray[np.float32]:
        """Zeros, `[rows]`."""
        zeros, self._zeros = self._zeros, None
        return np.zeros(self._rows, np.float32) if zeros is None else zeros

    def give(self, zeros: NDArray[np.float32]) -> None:
        """Give them back as zeros."""
        self._zeros = zeros


def _weighted(pairs: NDArray[np.uint32], title: float) -> NDArray[np.float32]:
    """What is counted in a text plus `title` times what is counted in its title."""
    weighted: NDArray[np.float32] = pairs[:, 0] + np.float32(title) * pairs[:, 1]
    return weighted.astype(np.float32)


def _scaled(collection: Collection, numbers: Numbers) -> Lengths:
    lengths = collection.lengths(numbers.title)
    alive = np.ones(len(lengths), np.bool_)
    alive[collection.dead_rows] = False
    mean = lengths[alive].mean(dtype=np.float64) if len(collection) else 1.0
    scaled = numbers.k1 * (1 - numbers.b + numbers.b * (lengths / np.float32(mean or 1.0)))
    scaled = np.maximum(scaled.astype(np.float32), np.float32(_SMALLEST))  # 0 / 0 is no score
    scaled[~alive] = np.inf
    return scaled


def _shared(rows: NDArray[np.uint32], others: NDArray[np.uint32]) -> int:
    """How many rows two ascending lists have in common."""
    few, many = (rows, others) if len(rows) < len(others) else (others, rows)
    if not len(few):
        return 0
    return int((many.take(many.searchsorted(few), mode="clip") == few).sum())


def _blocks(segment: Segment, keys: NDArray[np.uint64]) -> "list[_Block]":
    """Where the postings of each key are; 0 and 0 for those that the segment lacks."""
    if not len(segment.terms):
        return [(0, 0)] * len(keys)
    places = segment.terms.searchsorted(keys)
    there = segment.terms.take(places, mode="clip") == keys
    begins = segment.starts.take(places, mode="clip") * there
    ends = segment.starts.take(places + 1, mode="clip") * there
    return [*zip(begins.tolist(), ends.tolist(), strict=True)]


def _distinct(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows, ascending, each once. `np.unique` takes ten times as long for so few."""
    rows.sort()
    first = np.ones(len(rows), np.bool_)
    np.not_equal(rows[1:], rows[:-1], out=first[1:])
    return rows[first]


def _least(scores: NDArray[np.float32], depth: int) -> float:
    """The score that the `depth`-th best has; 0 where there are fewer."""
    if not 0 < depth <= len(scores):
        return 0.0
    ordered = scores.copy()
    ordered.partition(len(scores) - depth)
    return float(ordered[len(scores) - depth])
