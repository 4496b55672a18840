"""Inverted indexes of a few passages, and BM25 as its formula is written, one passage at a time."""

from collections import Counter
from collections.abc import Collection as Some
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log

import numpy as np

from consilience.retrieval.postings import Segment, SegmentDraft
from consilience.retrieval.scoring import Numbers
from consilience.store import IndexRow, visible

WORDS = [f"w{i}" for i in range(12)]  # none is a stop word, and each is its own stem


@dataclass(frozen=True)
class Page:
    """A passage: its words, those of its title, and its labels."""

    text: tuple[str, ...]
    title: tuple[str, ...] = ()
    access: tuple[str, ...] = ()

    def row(self, number: int) -> IndexRow:
        """It as the store hands it to an index."""
        empty = np.empty(0, np.float16)
        return IndexRow(number, " ".join(self.title), " ".join(self.text), empty, self.access, "")


def segment_of(pages: Mapping[int, Page]) -> Segment:
    """A segment of numbered pages."""
    draft = SegmentDraft()
    for number in sorted(pages):
        draft.add(pages[number].row(number))
    return draft.segment()


def best_of(
    pages: Mapping[int, Page],
    question: Sequence[str],
    numbers: Numbers,
    *,
    depth: int,
    held: Some[str] | None = None,
    chosen: Some[int] | None = None,
) -> list[tuple[int, float]]:
    """What a search has to find, computed without any index."""
    scores = {
        number: score_of(pages, number, question, numbers)
        for number, page in pages.items()
        if visible(page.access, held) and (chosen is None or number in chosen)
    }
    found = sorted((-score, number) for number, score in scores.items() if score > 0)
    return [(number, -score) for score, number in found[:depth]]


def score_of(
    pages: Mapping[int, Page], number: int, question: Sequence[str], numbers: Numbers
) -> float:
    """BM25 of one page."""

    def length(page: Page) -> float:
        return len(page.text) + numbers.title * len(page.title)

    page, average = pages[number], sum(map(length, pages.values())) / len(pages)
    norm = numbers.k1 * (1 - numbers.b + numbers.b * length(page) / (average or 1))
    score = 0.0
    for word, asked in Counter(question).items():
        there = sum(word in p.text or word in p.title for p in pages.values())
        frequency = page.text.count(word) + numbers.title * page.title.count(word)
        if frequency:
            idf = log(1 + (len(pages) - there + 0.5) / (there + 0.5))
            score += asked * idf * (numbers.k1 + 1) * frequency / (frequency + norm)
    return score
