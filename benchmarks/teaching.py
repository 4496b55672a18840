"""What the parts of `benchmarks/training.py` share.

A data set with its store, models to begin with, budgets of the processor, and a model measured on
the dev questions.
"""

import json
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from consilience import Passage, Rag, Store, evaluate
from consilience.encoding.folder import ModelFolder, write_folder
from consilience.evaluation import EvaluationOptions, Scoring, exact_match, f1
from consilience.model import AskOptions
from consilience.model.fusion import Fusion
from consilience.model.loading import tensors_of
from consilience.questions import Question, context_id, read_questions
from consilience.store import Where
from consilience.text import language_of
from consilience.training.config import TrainConfig
from consilience.training.opening import opened_store
from consilience.training.optimising import arguments
from consilience.training.run import refresh_of
from consilience.training.session import Session
from consilience.training.settings import parse_settings
from consilience.training.teaching import Teacher, opened_teacher
from data_sets import resampled

COMMON: dict[str, Any] = {
    "k": 5,
    "batch": 4,
    "steps": 10**7,
    "schedule": "constant",
    "warmup": 0,
    "log_every": 10**6,
    "report_to": [],
}
Tensors: TypeAlias = dict[str, Tensor]
Measured: TypeAlias = Sequence[Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Scale:
    """How large the work is.

    Attributes:
        minutes: Of the processor, for every row.
        questions: Dev questions that are answered.
        corpus: Paragraphs at most; those of the dev questions are always among them.
        seed: Of every draw, and of the trainings.
        rate: The learning rate of the losses.
        precision: Of the matrix products while it learns.
        jobs: Rows that are made at once, each with its share of the threads.
        threads: Of the processor, in all.
    """

    minutes: float
    questions: int
    corpus: int
    seed: int
    rate: float
    precision: str
    jobs: int
    threads: int

    @property
    def each(self) -> int:
        """Threads of a row."""
        return max(1, self.threads // self.jobs)

    def told(self, batch: int = COMMON["batch"]) -> str:
        """As the page says it."""
        return (
            f"{self.minutes:g} minutes of the processor a row, batches of {batch}, "
            f"seed {self.seed}, {self.precision}, {platform.machine()}, "
            f"{self.jobs} rows at once with {self.each} of {self.threads} threads each"
        )


@dataclass(frozen=True, slots=True)
class Task:
    """Questions over paragraphs.

    Attributes:
        train: To learn from.
        dev: To answer.
        passages: All that there is to be found.
    """

    train: tuple[Question, ...]
    dev: tuple[Question, ...]
    passages: tuple[Passage, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A model, measured.

    Attributes:
        name: Of the row.
        exact, f1, recall: Of every question, between 0 and 1.
        seen: Examples that were learned from.
        note: What else the table says of it.
    """

    name: str
    exact: Sequence[float]
    f1: Sequence[float]
    recall: Sequence[float]
    seen: int = 0
    note: str = ""


def task_of(folder: Path, scale: Scale) -> Task:
    """A data set of questions on paragraphs, whose paragraphs are the corpus."""
    draw = random.Random(scale.seed)
    train, dev = (_named(folder / f"{part}.jsonl.gz") for part in ("train", "dev"))
    dev = draw.sample(dev, min(scale.questions, len(dev)))
    mixed = chain(dev, draw.sample(train, len(train)))
    passages = {one.positive_ids[0]: _passage(one) for one in dev}
    for one in mixed:
        if len(passages) >= scale.corpus:
            break
        passages.setdefault(one.positive_ids[0], _passage(one))
    learned = [one for one in train if one.positive_ids[0] in passages]
    return Task(tuple(learned), tuple(dev), tuple(passages.values()))


def _named(path: Path) -> list[Question]:
    """Questions with the name under which their paragraph is found; bad lines are left out."""
    found = [one for one in read_questions(path, faults=[]) if one.context and one.answers]
    return [replace(one, positive_ids=(context_id(one.context, title=one.title),)) for one in found]


def _passage(question: Question) -> Passage:
    name, text = question.positive_ids[0], question.context
    return Passage(name, text, question.title, name, None, 0, len(text))


class Budget(TrainerCallback):
    """Ends a run when the process has spent its seconds.

    Args:
        seconds: Of the processor.
        keep: Told the number of every mark that is passed, from 1.
        marks: At equal distances, the last at the end.
    """

    def __init__(
        self, seconds: float, *, keep: Callable[[int], Any] = lambda _: None, marks: int = 1
    ) -> None:
        self.seconds, self.keep, self.marks = seconds, keep, marks
        self.begun, self.passed = time.process_time(), 0

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Look at the clock."""
        del args, state
        share = (time.process_time() - self.begun) / self.seconds
        while self.passed < min(self.marks, int(share * self.marks)):
            self.passed += 1
            self.keep(self.passed)
        control.should_training_stop = share >= 1


class Bench:
    """One data set with its store, on which models are trained and measured.

    Args:
        folder: For everything.
        task: What is asked.
        scale: How large the work is.
    """

    def __init__(self, folder: Path, task: Task, scale: Scale) -> None:
        self.folder, self.task, self.scale = folder, task, scale
        self._runs = 0

    def store_for(self, model: Path | None) -> Path:
        """All paragraphs with the vectors of a model, in a folder of their own."""
        place = self._next("store")
        with Store.open(place, encoder=Rag.load(model).encoder) as store:
            store.add(list(self.task.passages))
        return place

    def _next(self, name: str) -> Path:
        self._runs += 1
        return self.folder / f"{name}-{self._runs}"

    def config(self, settings: Mapping[str, Any]) -> TrainConfig:
        """The settings of a run, which has a folder of its own."""
        own = {
            "output": str(self._next("run")),
            "seed": self.scale.seed,
            "precision": self.scale.precision,
        }
        values = COMMON | {"data": {"train": ["questions"]}} | own | dict(settings)
        return parse_settings(TrainConfig, values, source="benchmark")

    def trained(self, settings: Mapping[str, Any], *, marks: int = 1) -> tuple[list[Path], int]:
        """Models at the marks of a budget, the last at its end, and how many examples were seen."""
        config = self.config(settings)
        places = [config.output / f"model-{mark}" for mark in range(1, marks + 1)]
        config.output.mkdir(parents=True)
        with opened_store(config) as store, opened_teacher(config) as teacher:
            budget = Budget(
                60 * self.scale.minutes, keep=lambda mark: rag.save(places[mark - 1]), marks=marks
            )
            session = self._session(config, store, teacher)
            rag, refresh = session.rag, refresh_of(session)
            trainer = session.trainer(arguments(config, saves=False), callbacks=[refresh, budget])
            trainer.once()
            refresh.finish()
        return places, int(trainer.state.global_step) * config.batch

    def _session(
        self, config: TrainConfig, store: Store | None, teacher: Teacher | None
    ) -> Session:
        return Session(config, store, [self.task.train], self.task.dev, teacher=teacher)

    def measured(
        self,
        name: str,
        model: Path | None,
        *,
        store: Path | None = None,
        fusion: Fusion = "sequence",
        right: bool = False,
        **rest: Any,
    ) -> Row:
        """A model on the dev questions, found by its own vectors.

        Args:
            name: Of the row.
            model: None for the one that ships.
            store: With the vectors of this model; None to make one.
            fusion: How answers are summed up.
            right: Answer from the right paragraph and no other.
            **rest: Of the row.
        """
        ask = AskOptions(k=5, mode="dense", beams=1, abstain=False, fusion=fusion)
        rag, place = Rag.load(model), store or self.store_for(model)
        with Store.open(place, encoder=rag.encoder) as opened:
            values = (self._from_right if right else self._from_found)(rag, opened, ask)
        each = {key: [one[key] for one in values] for key in ("exact_match", "f1", "recall@5")}
        print(json.dumps({"row": name} | {k: mean(v) for k, v in each.items()} | rest), flush=True)
        return Row(name, each["exact_match"], each["f1"], each["recall@5"], **rest)

    def _from_found(self, rag: Rag, store: Store, ask: AskOptions) -> Measured:
        options = EvaluationOptions(ask=ask, scoring=Scoring(overlap=False))
        return [one.values for one in evaluate(rag, store, self.task.dev, options).records]

    def _from_right(self, rag: Rag, store: Store, ask: AskOptions) -> Measured:
        retriever, found = rag.retriever(store, "dense"), []
        for one in self.task.dev:
            (right,) = one.positive_ids
            hits = {hit.passage.id for hit in retriever.search(one.question, k=5)}
            # A store names the document of a passage that came by itself in its own way.
            only = replace(ask, where=Where.of([("source", store.passage(right).source)]))
            text, language = rag.ask(one.question, store, only).text, language_of(one.question)
            scores = {
                name: score(text, one.answers, language=language)
                for name, score in (("exact_match", exact_match), ("f1", f1))
            }
            found.append({**scores, "recall@5": float(right in hits)})
        return found

    def bm25(self, place: Path, model: Path) -> list[float]:
        """1 where the paragraph is among the first five by words, else 0."""
        rag = Rag.load(model)
        with Store.open(place, encoder=rag.encoder) as store:
            retriever = rag.retriever(store, "bm25")
            return [
                float(
                    one.positive_ids[0]
                    in [h.passage.id for h in retriever.search(one.question, k=5)]
                )
                for one in self.task.dev
            ]


def interval(values: Sequence[float], seed: int = 0) -> str:
    """The mean in percent, with where 95 % of resamples lie."""
    low, high = resampled(values, seed)
    return f"{100 * statistics.fmean(values):.1f} ({100 * low:.0f} to {100 * high:.0f})"


def mean(values: Sequence[float]) -> float:
    """In percent, with a tenth."""
    return round(100 * statistics.fmean(values), 1)


def blank_start(place: Path, blank: int, seed: int) -> Path:
    """The shipped model with a question encoder of its own whose last layers are drawn anew.

    It reads and writes as it did, and its passages lie where they lay; what is lost is where a
    question belongs among them, which is what joint training has to find.

    Args:
        place: The folder to write.
        blank: Layers of the question encoder that are drawn anew.
        seed: Of the draw.
    """
    draw = torch.Generator().manual_seed(seed)

    def changed(tensors: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
        own = {
            name.replace("retriever.", "questions.", 1): value.clone()
            for name, value in tensors.items()
            if name.startswith("retriever.layer.")
        }
        late = {
            name: _random(name, value, draw)
            for name, value in own.items()
            if int(name.split(".")[2]) >= layers - blank
        }
        return {**tensors, **own, **late}

    return _written(place, changed)


def random_start(place: Path, seed: int) -> Path:
    """A model of the shape of the one that ships, of random weights."""
    draw = torch.Generator().manual_seed(seed)
    return _written(
        place,
        lambda tensors, _: {name: _random(name, value, draw) for name, value in tensors.items()},
    )


def _written(place: Path, changed: Callable[[Mapping[str, Tensor], int], Tensors]) -> Path:
    """The shipped model with other weights, told the number of its encoders' layers."""
    parts = Rag.load().parts
    assert isinstance(parts.origin, ModelFolder)
    config = parts.origin.config
    weights = {name: value.float() for name, value in tensors_of(parts)}
    tensors = {
        name: value.contiguous() for name, value in changed(weights, config.encoder_layers).items()
    }
    tokenizer = (parts.origin.path / "tokenizer.json").read_text(encoding="utf-8")
    write_folder(place, config, tensors, tokenizer)
    return place


def _random(name: str, value: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """As BERT begins: normal of 0.02, norms of one, no biases."""
    if value.dim() > 1:
        return 0.02 * torch.randn(value.shape, generator=draw)
    return torch.ones_like(value) if name.endswith("LayerNorm.weight") else torch.zeros_like(value)


def parameters(model: Path | None) -> int:
    """Of a model, in all."""
    return sum(value.numel() for _, value in tensors_of(Rag.load(model).parts))
