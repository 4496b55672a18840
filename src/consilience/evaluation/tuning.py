"""The numbers of a search, found by measuring them on questions whose passages are known.

One number after the other is moved along a small grid, and stays where the right passages stand
highest. Rankings are computed once for each setting that they depend on, and fused in memory. Half
of the questions choose; the other half says whether the choice holds, and what does not hold there
is not taken. No clock decides anything, so that the same questions find the same numbers.
"""

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from consilience.errors import UsageError
from consilience.evaluation.ranking import recall_at, reciprocal_rank_at
from consilience.evaluation.support import holds_answer
from consilience.retrieval import HybridWeights, Mode, Tuning, open_retriever
from consilience.retrieval.hybrid import DEPTH, fuse
from consilience.retrieval.opening import dense_ranker, lexical_ranker
from consilience.retrieval.ranking import Ranker, Ranking
from consilience.retrieval.tuning import IndexName
from consilience.text import language_of

if TYPE_CHECKING:
    from consilience.documents import Passage
    from consilience.encoding import Encoder
    from consilience.questions import Question
    from consilience.store import Store

LEAST = 20
"""Questions below which nothing is chosen: the halves would say nothing."""

OF_A_LANGUAGE = 10
"""Questions of a language in the half that chooses, below which its share stays as it is."""

GAIN = 0.001
"""How much the mean reciprocal rank must grow for a number to move."""

PLACES = 20
"""How far down a ranking is looked at."""

GRIDS: Mapping[str, tuple[float, ...]] = {
    "k1": (0.3, 0.6, 0.9, 1.2, 1.8),
    "b": (0.0, 0.2, 0.4, 0.6, 0.75, 0.9),
    "title": (0.0, 0.5, 1.0, 2.0, 4.0),
}
SHARES = tuple(round(0.1 * step, 1) for step in range(11))
TEMPERATURES = tuple(round(0.01 * 1.25**step, 4) for step in range(32))  # 0.01 to 10
KS = (3, 5, 8, 10)
CURVE = (1, 3, 5, 10, 20)
CANDIDATES = (200, 500, 1000, 2000)
"""What is tried."""

ENOUGH = 0.97
"""The share of the recall at `PLACES` that the smallest good `k` has."""

TIMED = 50
"""Questions whose searches are timed."""


@dataclass(frozen=True, slots=True)
class Point:
    """One place on the curve of recall against latency, on the half that checks.

    Attributes:
        k: Passages proposed.
        candidates: Vectors compared exactly; None where all are.
        recall: The share of the right passages among them.
        mrr: Mean reciprocal rank of the first.
        p50_ms: Median of the processor time of a search with its texts, in milliseconds.
        p95_ms: Its 95th percentile.
    """

    k: int
    candidates: int | None
    recall: float
    mrr: float
    p50_ms: float
    p95_ms: float


Halves = Mapping[str, Mapping[str, float]]
"""Metrics under `fit`, the half that chose, and `check`, the other one."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was found.

    Attributes:
        tuning: The numbers.
        before: How good the store's old ones are.
        after: How good these are.
        curve: Recall and latency of these.
        questions: How many chose, checked, and were left out because nothing is known of their
            passages.
        held: Whether the ranking was no worse on the half that checks; otherwise its numbers are
            the old ones.
    """

    tuning: Tuning
    before: Halves
    after: Halves
    curve: tuple[Point, ...]
    questions: Mapping[str, int]
    held: bool

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "tuning": self.tuning.to_dict(),
            "before": {half: dict(found) for half, found in self.before.items()},
            "after": {half: dict(found) for half, found in self.after.items()},
            "curve": [asdict(point) for point in self.curve],
            "questions": dict(self.questions),
            "held": self.held,
        }


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """How numbers are looked for.

    Attributes:
        mode: How passages are found.
        weights: The model's trust in its halves, where the store has none.
        most: Questions that are used; of more, a sample that depends on their words alone.
        index: How vectors are searched from now on; None as the store has it.
    """

    mode: Mode = "hybrid"
    weights: HybridWeights = field(default_factory=HybridWeights)
    most: int = 1000
    index: IndexName | None = None


def tune(
    store: "Store",
    questions: Sequence["Question"],
    *,
    encoder: "Encoder | None" = None,
    options: TuneOptions | None = None,
    listener: Callable[[str], None] | None = None,
) -> Tuned:
    """Find the numbers with which the right passages of questions stand highest.

    What a right passage is says the question: its `positive_ids`, passages or sources; else its
    `context`, of which a passage that holds an answer is a part; else its answers, which the
    passage holds.

    Args:
        store: What is searched; nothing is written to it.
        questions: At least 20 of which something is known.
        encoder: Of the store's vectors; not needed for the mode `bm25`.
        options: How; None for the defaults.
        listener: Told the name of each number before it is looked for.

    Raises:
        UsageError: Too few questions, or no encoder where one is needed.
        FingerprintError: The store's vectors are another encoder's.
    """
    options, tell = options or TuneOptions(), listener or (lambda _: None)
    known = [question for question in questions if _known(question)]
    fit, check = _halves(known, options.most)
    bench = _Bench(store, encoder, options)
    start = Tuning.of(store)
    base = replace(start, index=options.index or start.index)
    found = _moved(bench, fit, base, tell)
    held = _objective(bench, check, found) >= _objective(bench, check, base)
    chosen = _chosen(bench, fit, found if held else base, tell)
    tell("curve")
    return Tuned(
        tuning=chosen,
        before={"fit": bench.metrics(fit, start), "check": bench.metrics(check, start)},
        after={"fit": bench.metrics(fit, chosen), "check": bench.metrics(check, chosen)},
        curve=tuple(_curve(bench, check, chosen)),
        questions={
            "fit": len(fit),
            "check": len(check),
            "left_out": len(questions) - len(known),
        },
        held=held,
    )


def _halves(known: Sequence["Question"], most: int) -> tuple[list["Question"], list["Question"]]:
    """Every other question in an order that depends on its words alone."""
    ordered = sorted(known, key=lambda one: hashlib.sha256(one.question.encode()).digest())
    kept = ordered[:most]
    if len(kept) < LEAST:
        raise UsageError(
            f"{len(kept)} questions of which a passage or an answer is known; fewer than {LEAST} "
            "say nothing",
            hint="give each question its answers, its context or positive_ids, and ask more",
        )
    return kept[::2], kept[1::2]


def _known(question: "Question") -> bool:
    right = question.positive_ids or question.context or question.answers
    return bool(right) and not question.unanswerable


def _moved(
    bench: "_Bench", fit: Sequence["Question"], start: Tuning, tell: Callable[[str], None]
) -> Tuning:
    """Each number along its grid, and all of them a second time, since they hang together."""
    current = start
    for _ in range(2):
        before = current
        for name, grid in bench.grids(fit):
            tell(name)
            tried = [Tuning.parse({**current.to_dict(), name: value}) for value in grid]
            best = max(tried, key=lambda one: _objective(bench, fit, one))
            if _objective(bench, fit, best) >= _objective(bench, fit, current) + GAIN:
                current = best
        if current == before:
            break
    return current


def _objective(bench: "_Bench", questions: Sequence["Question"], tuning: Tuning) -> float:
    return bench.metrics(questions, tuning)["mrr@10"]


def _chosen(
    bench: "_Bench", fit: Sequence["Question"], tuning: Tuning, tell: Callable[[str], None]
) -> Tuning:
    """With the numbers that are not there to change the order: how thorough, many, sharp."""
    if bench.inexact(tuning):
        tell("candidates")
        tuning = _thorough_enough(bench, fit, tuning)
    tell("k")
    all_found = bench.recall(fit, tuning, PLACES)
    enough = [k for k in KS if bench.recall(fit, tuning, k) >= ENOUGH * all_found]
    tuning = replace(tuning, k=enough[0] if enough else KS[-1])
    if bench.mode == "hybrid":
        tell("temperature")
        tuning = replace(tuning, temperature=bench.temperature(fit, tuning))
    return tuning


def _curve(bench: "_Bench", check: Sequence["Question"], tuning: Tuning) -> list[Point]:
    """Other numbers of passages; and other numbers of candidates, where these count."""
    tried = [replace(tuning, k=k) for k in CURVE]
    if bench.inexact(tuning):
        others = [count for count in CANDIDATES if count != tuning.candidates]
        tried += [replace(tuning, candidates=count) for count in others]
    return [bench.point(check, one) for one in tried]


def _thorough_enough(bench: "_Bench", fit: Sequence["Question"], tuning: Tuning) -> Tuning:
    """The fewest candidates with which hardly a right passage is lost."""
    tried = [replace(tuning, candidates=count) for count in CANDIDATES]
    found = [bench.recall(fit, one, PLACES) for one in tried]
    return next(one for one, r in zip(tried, found, strict=True) if r >= max(found) - GAIN)


class _Bench:
    """Rankings of questions under settings, each computed once."""

    def __init__(self, store: "Store", encoder: "Encoder | None", options: TuneOptions) -> None:
        self.mode = options.mode
        self._store, self._encoder, self._weights = store, encoder, options.weights
        self._rankers: dict[tuple[str, float, float, float], Ranker] = {}
        self._halves: dict[tuple[str, float, float, float, str], Ranking] = {}
        self._gold: dict[tuple[Question, int], str] = {}
        self._tops: dict[tuple[Question, Tuning], list[_Place]] = {}

    def grids(self, fit: Sequence["Question"]) -> list[tuple[str, tuple[float, ...]]]:
        """The numbers that change the order, with what is tried of each."""
        by_words = [] if self.mode == "dense" else list(GRIDS.items())
        if self.mode != "hybrid":
            return by_words
        spoken: list[str] = [language_of(question.question) or "other" for question in fit]
        shares = [(name, SHARES) for name in ("zh", "en", "other")]
        return [*by_words, *(one for one in shares if spoken.count(one[0]) >= OF_A_LANGUAGE)]

    def metrics(self, questions: Sequence["Question"], tuning: Tuning) -> dict[str, float]:
        """Means over questions, by name."""
        found = {f"recall@{k}": self.recall(questions, tuning, k) for k in (1, 5, 20)}
        return found | {"mrr@10": self.mrr(questions, tuning, 10)}

    def recall(self, questions: Sequence["Question"], tuning: Tuning, k: int) -> float:
        """The share of the right passages among the first `k`."""
        return fmean(
            recall_at(k, _first_times(self._top(one, tuning)), relevant=_relevant(one))
            for one in questions
        )

    def mrr(self, questions: Sequence["Question"], tuning: Tuning, k: int) -> float:
        """The mean of one over the rank of the first right passage, 0 beyond `k`."""
        tops = (self._top(one, tuning) for one in questions)
        return fmean(reciprocal_rank_at(k, [bool(p.gold) for p in top]) for top in tops)

    def temperature(self, questions: Sequence["Question"], tuning: Tuning) -> float | None:
        """The T under which the right passages are likeliest, of those that are tried.

        The mean of `log (sum over right d of exp(s(d) / T) / sum over the first k)` is largest,
        over the questions that have a right passage among the first k; None without any.
        """
        k = tuning.proposed(None)
        tops = [self._top(one, tuning)[:k] for one in questions]
        tops = [top for top in tops if any(place.gold for place in top)]
        if not tops:
            return tuning.temperature
        return max(TEMPERATURES, key=lambda heat: fmean(_log_share(top, heat) for top in tops))

    def inexact(self, tuning: Tuning) -> bool:
        """Whether the number of candidates decides what is found."""
        if self.mode == "bm25" or tuning.index == "exact":
            return False
        from consilience.retrieval.vectors import CODES_FROM

        return tuning.index != "auto" or len(self._store) >= CODES_FROM

    def point(self, questions: Sequence["Question"], tuning: Tuning) -> Point:
        """Recall and latency with these numbers."""
        k = tuning.proposed(None)
        p50, p95 = self.timed(questions[:TIMED], tuning, k)
        recall, mrr = self.recall(questions, tuning, k), self.mrr(questions, tuning, k)
        count = tuning.candidates if self.inexact(tuning) else None
        return Point(k, count, recall, mrr, p50, p95)

    def timed(self, questions: Sequence["Question"], tuning: Tuning, k: int) -> tuple[float, float]:
        """Milliseconds of processor time of a search with its texts, median and 95th percentile."""
        retriever = open_retriever(
            self._store,
            mode=self.mode,
            encoder=self._encoder,
            weights=self._weights,
            tuning=tuning,
        )
        retriever.search(questions[0].question, k=k)  # what is opened once counts for none
        spent = []
        for question in questions:
            begun = time.process_time()
            retriever.search(question.question, k=k)
            spent.append(1000 * (time.process_time() - begun))
        p50, p95 = np.percentile(spent, (50, 95))
        return round(float(p50), 3), round(float(p95), 3)

    def _top(self, question: "Question", tuning: Tuning) -> "list[_Place]":
        """The first places of the fused ranking, with what is gold in them."""
        key = (question, replace(tuning, k=None, temperature=None))
        if key not in self._tops:
            ranking = self._ranking(question.question, tuning)[:PLACES]
            gold = self._marks(question, [number for number, _ in ranking])
            self._tops[key] = [_Place(score, gold[number]) for number, score in ranking]
        return self._tops[key]

    def _ranking(self, question: str, tuning: Tuning) -> Ranking:
        share = self._share(question, tuning)
        lexical = self._by_words(question, tuning) if share < 1 else []
        dense = self._by_vectors(question, tuning) if share > 0 else []
        if self.mode == "hybrid":
            return fuse(lexical, dense, share=share)
        return lexical or dense

    def _share(self, question: str, tuning: Tuning) -> float:
        if self.mode == "hybrid":
            return tuning.weights(self._weights).for_question(question)
        return 1.0 if self.mode == "dense" else 0.0

    def _by_words(self, question: str, tuning: Tuning) -> Ranking:
        settings = ("lexical", tuning.k1, tuning.b, tuning.title)
        if settings not in self._rankers:
            self._rankers[settings] = lexical_ranker(self._store, tuning)
        return self._ranked(question, settings)

    def _by_vectors(self, question: str, tuning: Tuning) -> Ranking:
        settings = (tuning.index, float(tuning.candidates), 0.0, 0.0)
        if settings not in self._rankers:
            if self._encoder is None:
                raise UsageError(
                    f"the mode {self.mode} needs an encoder, received None",
                    hint="pass encoder=, or take the mode bm25",
                )
            self._rankers[settings] = dense_ranker(self._store, self._encoder, tuning)
        return self._ranked(question, settings)

    def _ranked(self, question: str, settings: tuple[str, float, float, float]) -> Ranking:
        key = (*settings, question)
        if key not in self._halves:
            self._halves[key] = self._rankers[settings].rank(question, depth=DEPTH)
        return self._halves[key]

    def _marks(self, question: "Question", numbers: Sequence[int]) -> dict[int, str]:
        """The gold thing that each passage is or holds for a question; empty for none."""
        new = [number for number in numbers if (question, number) not in self._gold]
        for number, passage in self._store.passages(new).items():
            self._gold[question, number] = gold_in(question, passage)
        return {number: self._gold.get((question, number), "") for number in numbers}


@dataclass(frozen=True, slots=True)
class _Place:
    """One place of a ranking: its score, and the gold thing that stands there or empty."""

    score: float
    gold: str


def gold_in(question: "Question", passage: "Passage") -> str:
    """The name of the right thing that a passage is or holds; empty for none. See `tune`."""
    if question.positive_ids:
        names = (passage.id, passage.source)
        return next((name for name in names if name in question.positive_ids), "")
    if question.context and not _overlap(passage.text, question.context):
        return ""
    if question.context and not question.answers:
        return "context"
    return "answer" if holds_answer(passage.text, question.answers) else ""


def _overlap(text: str, context: str) -> bool:
    """Whether one is a part of the other, white space aside."""
    ours, theirs = " ".join(text.split()), " ".join(context.split())
    return ours in theirs or theirs in ours


def _relevant(question: "Question") -> int:
    return len(set(question.positive_ids)) or 1


def _first_times(top: Sequence[_Place]) -> list[bool]:
    """Where each gold thing stands first."""
    names = [place.gold for place in top]
    return [bool(name) and name not in names[:rank] for rank, name in enumerate(names)]


def _log_share(top: Sequence[_Place], temperature: float) -> float:
    """The log of the prior that the right passages have, in nats."""
    best = max(place.score for place in top)
    weights = [math.exp((place.score - best) / temperature) for place in top]
    right = sum(w for w, place in zip(weights, top, strict=True) if place.gold)
    return math.log(max(right, 1e-300) / sum(weights))
