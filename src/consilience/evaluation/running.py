"""`evaluate`: questions asked of a model over a store, scored one by one, summed up with intervals.

The way of a question: it is answered as anyone's would be, its ranking is looked up to a fixed
depth, both are scored, and the record is written before the next question is asked.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeAlias

from consilience.errors import UsageError
from consilience.evaluation.contexts import label_of, store_of_contexts
from consilience.evaluation.overlap import require_overlap_packages
from consilience.evaluation.records import Record
from consilience.evaluation.resampling import Interval, Resampling, intervals
from consilience.evaluation.runs import Run, RunFile, Setup
from consilience.evaluation.scoring import Outcome, Scoring, scored
from consilience.evaluation.statistic import plain
from consilience.evaluation.summary import METRICS, statistics_of
from consilience.questions.tasks import Task, labels_of, put
from consilience.version import __version__

if TYPE_CHECKING:
    from torch import Tensor

    from consilience.model import Answer, AskOptions, Rag
    from consilience.questions import Question
    from consilience.store import Store

Progress = Callable[[int, int], None]
"""Told after every question how many are done, and how many there are."""

Asked: TypeAlias = "Callable[[str, Store, AskOptions], Answer]"
"""Answers a question from a store, as `Rag.ask` does."""

_SAMPLE = 1024  # values of a tensor that tell it from another


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """How a model is evaluated.

    Attributes:
        ask: How questions are answered; None for the defaults. Their history is each question's.
        scoring: How answers are measured.
        resampling: How intervals are made; another one needs no new answers.
        through: Who is asked, in the place of the model itself, as where others ask it too.
        task: How questions are put, and among which answers is chosen; None for as they are.
        example: A question with its answer that is shown before each (one-shot); needs a task.
    """

    ask: "AskOptions | None" = None
    scoring: Scoring = field(default_factory=Scoring)
    resampling: Resampling = field(default_factory=Resampling)
    through: "Asked | None" = None
    task: "Task | None" = None
    example: "Question | None" = None

    def __post_init__(self) -> None:
        if self.example is not None and self.task is None:
            raise UsageError("an example is shown for a task only", hint="name the task")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came out.

    Attributes:
        metrics: By name, in the order of `consilience.evaluation.METRICS`; those that no question
            defines are left out.
        intervals: Where each metric would lie if other questions of the kind had been asked.
        records: Every question.
        setup: What was run.
        resumed: How many questions had been answered by an earlier call.
        level: The share of resamples that an interval holds.
    """

    metrics: Mapping[str, float]
    intervals: Mapping[str, Interval]
    records: tuple[Record, ...]
    setup: Setup
    resumed: int = 0
    level: float = Resampling().level

    @property
    def n(self) -> int:
        """How many questions there are."""
        return len(self.records)

    def counts(self) -> dict[str, int]:
        """Over how many questions each metric that is a mean was taken."""
        names = [name for one in self.records for name in one.values]
        return {name: names.count(name) for name in METRICS if name in names}

    def timings_ms(self) -> dict[str, float]:
        """The median of every stage, in milliseconds, in the order of the stages."""
        stages = dict.fromkeys(stage for one in self.records for stage in one.timings_ms)
        found = {s: [r.timings_ms[s] for r in self.records if s in r.timings_ms] for s in stages}
        return {stage: round(median(times), 3) for stage, times in found.items()}

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, without the records."""
        return {
            "metrics": dict(self.metrics),
            "n": self.n,
            "level": self.level,
            "intervals": {name: [one.low, one.high] for name, one in self.intervals.items()},
            "counts": self.counts(),
            "timings_ms": self.timings_ms(),
            "resumed": self.resumed,
            "setup": dict(self.setup),
        }


def evaluate(
    rag: "Rag",
    store: "Store | None",
    questions: Sequence["Question"],
    options: EvaluationOptions | None = None,
    *,
    run: str | Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Ask every question, and measure the answers, the rankings and the citations.

    Args:
        rag: The model.
        store: The knowledge base; None to read, for each question, the context that it came with.
        questions: What is asked and what is right, at least one.
        options: How; None for the defaults.
        run: A file that every record is written to as it is made. If it holds a part of this very
            evaluation, only the rest is asked.
        progress: Told after every question.

    Raises:
        UsageError: There are no questions, a question cannot be asked, one lacks a context that
            should be read, or the file holds a run of something else.
        DependencyError: ROUGE or BLEU is wanted and its package is not installed.

    Example:
        >>> evaluation = evaluate(rag, store, read_questions("dev.jsonl"))  # doctest: +SKIP
        >>> evaluation.metrics["f1"], evaluation.intervals["f1"]  # doctest: +SKIP
        (0.61, Interval(low=0.57, high=0.65))
    """
    options = options or EvaluationOptions()
    if not questions:
        raise UsageError("there are no questions to evaluate", hint="give at least one question")
    if options.scoring.overlap:
        require_overlap_packages()
    setup = _setup(rag, store, questions, options)
    with ExitStack() as stack:
        file = stack.enter_context(closing(RunFile(Path(run), setup))) if run else None
        done = file.done if file else ()
        records = list(done)
        if len(done) < len(questions):
            opened = store or stack.enter_context(store_of_contexts(questions, rag.encoder))
            own = store is None
            asker = _Asker(rag, opened, options, own_context=own, labels=_labels(questions))
            for record in asker.records(questions, skip=len(done)):
                records.append(record)
                if file:
                    file.append(record)
                if progress:
                    progress(len(records), len(questions))
    return summed_up(Run(setup, tuple(records)), options.resampling, resumed=len(done))


def summed_up(run: Run, how: Resampling | None = None, *, resumed: int = 0) -> Evaluation:
    """The figures of a run.

    Args:
        run: Complete or not, with at least one record.
        how: How intervals are made; None for the defaults.
        resumed: How many of its records an earlier call had made.

    Raises:
        UsageError: The run has no records.
    """
    if not run.records:
        raise UsageError("the run has no questions yet", hint="run consilience evaluate again")
    n, statistics = len(run.records), statistics_of(run.records)
    values = {name: plain(statistic, n) for name, statistic in statistics.items()}
    known = {name: value for name, value in values.items() if value == value}  # NaN is no figure
    how = how or Resampling()
    spans = intervals({name: statistics[name] for name in known}, n, how)
    metrics = {name: known[name] for name in METRICS if name in known}
    ordered = {name: spans[name] for name in metrics if name in spans}
    return Evaluation(metrics, ordered, run.records, run.setup, resumed, how.level)


@dataclass(frozen=True, slots=True)
class _Asker:
    """Answers and scores questions one after the other.

    Attributes:
        rag: The model.
        store: The knowledge base.
        options: How.
        own_context: Whether each question reads its own context only.
        labels: Those of the data, for a task that has none of its own.
    """

    rag: "Rag"
    store: "Store"
    options: EvaluationOptions
    own_context: bool
    labels: tuple[str, ...] = ()

    def records(self, questions: Sequence["Question"], *, skip: int) -> Iterator[Record]:
        names = _names(questions)
        for name, question in list(zip(names, questions, strict=True))[skip:]:
            try:
                yield scored(name, question, self._outcome(question), self.options.scoring)
            except UsageError as error:
                raise UsageError(f"question {name}: {error.message}", hint=error.hint) from error

    def _outcome(self, question: "Question") -> Outcome:
        how = _ask_options(self.options)
        access = (label_of(question),) if self.own_context else how.access
        ask = self.options.through or self.rag.ask
        how = replace(how, history=question.history, access=access, among=self._among(question))
        answer = ask(self._put(question), self.store, how)
        depth = max(how.k or 0, self.options.scoring.depth)
        retriever = self.rag.retriever(self.store, how.mode, how.refinement)
        hits = retriever.search(answer.question, k=depth, access=access)
        return Outcome(answer, [hit.passage for hit in hits])

    def _put(self, question: "Question") -> str:
        task = self.options.task
        if task is None:
            return question.question
        return put(task, question, example=self.options.example).question

    def _among(self, question: "Question") -> tuple[str, ...]:
        task = self.options.task
        return () if task is None else labels_of(task, question, self.labels)


def _labels(questions: Sequence["Question"]) -> tuple[str, ...]:
    """The labels of the data, else the answers, each once."""
    found = (one.label or next(iter(one.answers), "") for one in questions)
    return tuple(sorted(set(filter(None, found))))


def _ask_options(options: EvaluationOptions) -> "AskOptions":
    from consilience.model import AskOptions

    return options.ask or AskOptions()


def _names(questions: Sequence["Question"]) -> list[str]:
    """An id for each question, its own if it has one; what is repeated gets a number."""
    seen: dict[str, int] = {}
    names = []
    for place, question in enumerate(questions, start=1):
        name = question.id or str(place)
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return names


def _setup(
    rag: "Rag", store: "Store | None", questions: Sequence["Question"], options: EvaluationOptions
) -> Setup:
    """All that answers and scores depend on, so that an interrupted run can be told from others."""
    scoring = options.scoring
    judge = getattr(scoring.judge, "__qualname__", type(scoring.judge).__qualname__)
    return {
        "version": __version__,
        "data": _digest_of_questions(questions),
        "questions": len(questions),
        "model": _digest_of_model(rag),
        "store": None if store is None else [store.identity, store.sequence, store.settings],
        "task": None if options.task is None else options.task.name,
        "example": None if options.example is None else _digest_of_questions([options.example]),
        "ask": json.loads(json.dumps(asdict(_ask_options(options)), default=sorted)),
        "scoring": {"overlap": scoring.overlap, "judge": judge, "depth": scoring.depth},
    }


def _digest_of_questions(questions: Sequence["Question"]) -> str:
    digest = hashlib.sha256()
    for question in questions:
        digest.update(json.dumps(asdict(question), sort_keys=True).encode())
    return digest.hexdigest()


def _digest_of_model(rag: "Rag") -> str:
    """A digest over settings, the encoder's fingerprint and weights, of large tensors a sample.

    Enough to notice that a model was trained further, in a second and not in minutes.
    """
    encoder = "" if rag.encoder is None else rag.encoder.fingerprint
    digest = hashlib.sha256(f"{rag.settings} {encoder}".encode())
    for name, value in sorted(rag.model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(_sample(value))
    return digest.hexdigest()


def _sample(value: "Tensor") -> bytes:
    flat = value.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // _SAMPLE)].double().cpu().numpy().tobytes()
