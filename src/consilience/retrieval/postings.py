"""Postings: which passages hold a term, how often, and how long they are; nothing of scores.

A `Segment` is an immutable part of an inverted index: arrays in which everything stands sorted, so
that the same arrays serve in memory and mapped from files. Terms are kept as digests of eight
bytes, never as text, so a vocabulary of millions costs two machine words a term and is looked up by
bisection. Counts in the text and in the title are kept apart, so how much a title is worth, like
every other number of a score, is free when a question is asked. Knows neither files nor stores.
"""

import json
from array import array
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consilience.store import IndexRow
from consilience.text import analyze

Labels = tuple[str, ...]
"""The access labels of a passage."""


_REMEMBERED = 1 << 26  # bytes of forms that a segment keeps by row


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Passages and the terms in them. The fields are arrays, so that each can be a file.

    Attributes:
        terms: `term_keys` of its terms, uint64, `[terms]`, ascending.
        starts: Where the postings of each term begin, int64, `[terms + 1]`; none is empty.
        rows: The row of each posting, uint32, `[postings]`, ascending within a term.
        forms: The row of `pairs` that belongs to each posting, uint8 if that is enough,
            `[postings]`.
        pairs: How often a term stands in a text and in its title, uint32, `[forms, 2]`; the few
            combinations that occur, each once, ascending. The first is always 0 and 0.
        numbers: The passage's number in the store for each row, int64, `[rows]`, ascending.
        lengths: Tokens of its text and of its title, uint32, `[rows, 2]`.
        kinds: Which labels it has, a place in `labels`, uint32, `[rows]`.
        labels_json: The distinct sets of labels, a JSON list in UTF-8, uint8.
        remembered: Of terms that were asked for, `forms_by_row`; no field on disk.
    """

    terms: NDArray[np.uint64]
    starts: NDArray[np.int64]
    rows: NDArray[np.uint32]
    forms: NDArray[np.unsignedinteger[Any]]
    pairs: NDArray[np.uint32]
    numbers: NDArray[np.int64]
    lengths: NDArray[np.uint32]
    kinds: NDArray[np.uint32]
    labels_json: NDArray[np.uint8]
    remembered: dict[int, NDArray[np.unsignedinteger[Any]]] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many passages it has."""
        return len(self.numbers)

    @property
    def labels(self) -> list[Labels]:
        """The distinct sets of labels."""
        return [tuple(labels) for labels in json.loads(self.labels_json.tobytes())]

    def forms_by_row(self, begin: int, end: int) -> NDArray[np.unsignedinteger[Any]]:
        """The form of every row, `[rows]`, in the postings from `begin` to `end` of one term.

        It is remembered, which pays for a term that many passages have.
        """
        forms = self.remembered.get(begin)
        if forms is None:
            forms = np.zeros(len(self), self.forms.dtype)
            forms[self.rows[begin:end]] = self.forms[begin:end]
            if len(self.remembered) * forms.nbytes >= _REMEMBERED:
                self.remembered.clear()
            self.remembered[begin] = forms
        return forms


def term_keys(terms: Iterable[str]) -> NDArray[np.uint64]:
    """What stands for each term, `[terms]`: the first eight bytes of its BLAKE2b digest.

    Two of ten million terms fall together with a probability of 3 in a million, and would then
    count as one.
    """
    digests = (blake2b(t.encode(errors="surrogatepass"), digest_size=8).digest() for t in terms)
    return np.array([int.from_bytes(digest, "little") for digest in digests], np.uint64)


def labels_array(labels: Iterable[Labels]) -> NDArray[np.uint8]:
    """Distinct sets of labels as a segment keeps them."""
    return np.frombuffer(json.dumps(list(labels), ensure_ascii=False).encode(), np.uint8)


class SegmentDraft:
    """Passages on their way into a segment. Their numbers must grow."""

    def __init__(self) -> None:
        self._terms: defaultdict[str, int] = defaultdict()
        self._terms.default_factory = self._terms.__len__  # the next new term's place
        self._texts, self._titles = array("I"), array("I")  # places of their tokens' terms
        self._labels: dict[Labels, int] = {}
        self._numbers: list[int] = []
        self._lengths: list[tuple[int, int]] = []
        self._kinds: list[int] = []

    def __len__(self) -> int:
        """How many passages it has."""
        return len(self._numbers)

    @property
    def tokens(self) -> int:
        """How many tokens its passages have."""
        return len(self._texts) + len(self._titles)

    def add(self, row: IndexRow) -> None:
        """Take a passage in."""
        text, title = analyze(row.text), analyze(row.title)
        self._texts.extend(map(self._terms.__getitem__, text))
        self._titles.extend(map(self._terms.__getitem__, title))
        self._lengths.append((len(text), len(title)))
        self._numbers.append(row.number)
        self._kinds.append(self._labels.setdefault(row.access, len(self._labels)))

    def segment(self) -> Segment:
        """All passages that were taken in."""
        lengths = np.array(self._lengths, np.uint32).reshape(-1, 2)
        keys = term_keys(self._terms)
        counted = self._counted(_ranks(keys), lengths)
        forms, pairs = forms_of(counted.pairs)
        return Segment(
            terms=np.sort(keys),
            starts=starts_of(np.bincount(counted.terms, minlength=len(keys))),
            rows=counted.rows.astype(np.uint32),
            forms=forms,
            pairs=pairs,
            numbers=np.array(self._numbers, np.int64),
            lengths=lengths,
            kinds=np.array(self._kinds, np.uint32),
            labels_json=labels_array(self._labels),
        )

    def _counted(self, ranks: NDArray[np.int64], lengths: NDArray[np.uint32]) -> "_Counted":
        """The occurrences of every token, sorted by term and row, and those of a posting counted.

        An occurrence is one number, `2 * (term * rows + row)`, odd where it is in the title.
        """
        rows = np.arange(len(self), dtype=np.int64)
        sides = [
            2 * (ranks[np.frombuffer(tokens, np.uintc)] * len(self) + np.repeat(rows, length))
            + is_title
            for is_title, (tokens, length) in enumerate(
                zip((self._texts, self._titles), lengths.T, strict=True)
            )
            if tokens
        ]
        return _Counted.of(np.concatenate([np.empty(0, np.int64), *sides]), len(self))


@dataclass(frozen=True, slots=True, eq=False)
class _Counted:
    """Postings by term and row: `terms`, `rows` and `pairs` of counts, `[postings]` each."""

    terms: NDArray[np.int64]
    rows: NDArray[np.int64]
    pairs: NDArray[np.int64]

    @classmethod
    def of(cls, occurrences: NDArray[np.int64], rows: int) -> "_Counted":
        if not len(occurrences):
            return cls(*(np.empty(shape, np.int64) for shape in (0, 0, (0, 2))))
        occurrences.sort()
        of_posting = occurrences >> 1
        first = np.flatnonzero(np.diff(of_posting, prepend=-1))
        titles = np.add.reduceat(occurrences & 1, first)
        texts = np.diff(first, append=len(occurrences)) - titles
        terms, places = np.divmod(of_posting[first], rows)
        return cls(terms, places, np.stack([texts, titles], axis=1))


def _ranks(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The place of each key among all in ascending order."""
    ranks = np.empty(len(keys), np.int64)
    ranks[np.argsort(keys)] = np.arange(len(keys))
    return ranks


def starts_of(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of several runs of these lengths begins, and where the last one ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def forms_of(
    pairs: NDArray[np.integer[Any]],
) -> tuple[NDArray[np.unsignedinteger[Any]], NDArray[np.uint32]]:
    """Which of the distinct pairs of counts each of many is, and these pairs."""
    codes = np.concatenate([np.zeros(1, np.uint64), coded(pairs)])
    distinct, which = np.unique(codes, return_inverse=True)
    found = np.stack([distinct >> np.uint64(32), distinct & np.uint64(0xFFFFFFFF)], axis=1)
    return which[1:].astype(form_type(len(found))), found.astype(np.uint32)


def coded(pairs: NDArray[np.integer[Any]]) -> NDArray[np.uint64]:
    """Each pair of counts as one number, which sorts as the pair does."""
    wide = pairs.astype(np.uint64)
    return wide[:, 0] << np.uint64(32) | wide[:, 1]


def form_type(forms: int) -> np.dtype[Any]:
    """The smallest type that tells so many forms apart."""
    return np.min_scalar_type(max(forms - 1, 0))
