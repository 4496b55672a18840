"""Several segments as one, without the passages that are gone.

What is merged is copied in blocks into arrays that the caller provides, so that merging segments
that are mapped from files into others that are needs the memory of a block. Segments follow one
another as their passages' numbers do, so nothing has to be sorted but the terms.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from consilience.retrieval.postings import (
    Labels,
    Segment,
    coded,
    form_type,
    labels_array,
    starts_of,
)

Room = Callable[[str, int, DTypeLike], NDArray[Any]]
"""Makes room for a field of a segment: its name, how many there will be, and of what type."""

_BLOCK = 1 << 21  # postings that are copied at a time


def merged(segments: Sequence[Segment], dead: NDArray[np.int64], room: Room) -> Segment:
    """One segment with the passages of several.

    Args:
        segments: In the order of their numbers.
        dead: Numbers to leave out, ascending.
        room: Where the postings are put.
    """
    parts = _parts(segments, dead)
    pairs = np.unique(np.concatenate([s.pairs for s in segments]), axis=0)
    terms, starts, runs = _together(parts)
    rows = room("rows", int(starts[-1]), np.uint32)
    forms = room("forms", int(starts[-1]), form_type(len(pairs)))
    target = _Target(rows, forms, starts[:-1].copy())
    for part, run in zip(parts, runs, strict=True):
        target.take(part, run, np.searchsorted(coded(pairs), coded(part.segment.pairs)))
    labels: dict[Labels, int] = {}
    kinds = [_kinds(part, labels) for part in parts]
    return Segment(
        terms=terms,
        starts=starts,
        rows=rows,
        forms=forms,
        pairs=pairs,
        numbers=np.concatenate([part.segment.numbers[part.stays] for part in parts]),
        lengths=np.concatenate([part.segment.lengths[part.stays] for part in parts]),
        kinds=np.concatenate(kinds).astype(np.uint32),
        labels_json=labels_array(labels),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One of the segments.

    Attributes:
        segment: The segment.
        stays: Which of its passages stay, `[rows]`.
        new_rows: Their rows in the whole, `[rows]`; meaningless for those that go.
        counts: How many postings of each term stay, `[terms]`.
    """

    segment: Segment
    stays: NDArray[np.bool_]
    new_rows: NDArray[np.uint32]
    counts: NDArray[np.int64]


def _parts(segments: Sequence[Segment], dead: NDArray[np.int64]) -> list[_Part]:
    parts, above = [], 0
    for segment in segments:
        stays = ~np.isin(segment.numbers, dead)
        new_rows = (above + np.cumsum(stays) - 1).astype(np.uint32)
        parts.append(_Part(segment, stays, new_rows, _counts(segment, stays)))
        above += int(stays.sum())
    return parts


def _counts(segment: Segment, stays: NDArray[np.bool_]) -> NDArray[np.int64]:
    counts = np.diff(segment.starts)
    if not stays.all():
        for first, last in _blocks(segment.starts):
            begin, end = segment.starts[first], segment.starts[last]
            staying = stays[segment.rows[begin:end]].astype(np.int64)
            counts[first:last] = np.add.reduceat(staying, segment.starts[first:last] - begin)
    return counts


def _blocks(starts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Ranges of terms that have about `_BLOCK` postings together."""
    first, terms = 0, len(starts) - 1
    while first < terms:
        last = int(np.searchsorted(starts, starts[first] + _BLOCK))
        last = min(max(last, first + 1), terms)
        yield first, last
        first = last


def _together(
    parts: Sequence[_Part],
) -> tuple[NDArray[np.uint64], NDArray[np.int64], list[NDArray[np.int64]]]:
    """The terms of all, where their postings begin, and the place of every part's terms in them."""
    terms = np.unique(np.concatenate([part.segment.terms for part in parts]))
    places = [np.searchsorted(terms, part.segment.terms) for part in parts]
    totals = np.zeros(len(terms), np.int64)
    for part, place in zip(parts, places, strict=True):
        totals[place] += part.counts
    kept = totals > 0
    moved = np.maximum(np.cumsum(kept) - 1, 0)
    return terms[kept], starts_of(totals[kept]), [moved[place] for place in places]


@dataclass(frozen=True, slots=True, eq=False)
class _Target:
    """The postings of the whole, `rows` and `forms`, and how far each term's are `filled`."""

    rows: NDArray[np.uint32]
    forms: NDArray[np.unsignedinteger[Any]]
    filled: NDArray[np.int64]

    def take(self, part: _Part, run: NDArray[np.int64], new_forms: NDArray[np.int64]) -> None:
        """Copy the postings of a part, each behind those of its term that are there."""
        segment = part.segment
        for first, last in _blocks(segment.starts):
            block = slice(segment.starts[first], segment.starts[last])
            rows = segment.rows[block]
            stays, counts = part.stays[rows], part.counts[first:last]
            if not counts.any():
                continue
            to = self._free(run[first:last], counts)
            self.rows[to] = part.new_rows[rows[stays]]
            self.forms[to] = new_forms[segment.forms[block][stays]]

    def _free(self, run: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """The next free places of some terms, `counts` of each, and take them."""
        begins = self.filled[run] - (np.cumsum(counts) - counts)
        # Terms that are gone from this part share a place with another; they have none to fill.
        np.add.at(self.filled, run, counts)
        return np.repeat(begins, counts) + np.arange(counts.sum())


def _kinds(part: _Part, labels: dict[Labels, int]) -> NDArray[np.int64]:
    """The kinds of the passages that stay, as places in the labels of the whole."""
    own = part.segment.labels
    places = np.array([labels.setdefault(one, len(labels)) for one in own], np.int64)
    kinds: NDArray[np.int64] = places[part.segment.kinds[part.stays]]
    return kinds
