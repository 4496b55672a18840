"""What training costs and what it is worth, in four parts that can be run one by one.

steps: a step of joint training, the passages being found, beside transformers' RAG classes on the
same random weights: loss, gradients, AdamW. Each library has a process of its own, they take turns,
and the losses of every step are compared.

losses: every joint loss on the same questions, from the same small model, for the same seconds of
the processor. The seconds are those of the whole process from the moment at which a row begins:
loading, looking for hard negatives, retrieval and its refresh included.

distil: a student of a third of the parameters, before and after it was taught, and its teacher.

chinese: a model that was trained on English, and one of random weights, learn Chinese from a
quarter of the examples; points along the way.

Answers of a row are given the way in which it was trained. Intervals are bootstrapped over the
questions. A part that is run again replaces its own section of the page and no other.

    python benchmarks/training.py --data DIR --out docs/benchmarks/training.md
    python benchmarks/training.py --data DIR --parts losses --minutes 0.3 --corpus 300
"""

import argparse
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from consilience import Passage, Rag, Store, evaluate
from consilience.encoding.compact import fastest_dtype
from consilience.encoding.folder import ModelFolder, write_folder
from consilience.evaluation import EvaluationOptions, Scoring
from consilience.model import AskOptions
from consilience.model.fusion import Fusion
from consilience.model.loading import tensors_of
from consilience.questions import Question, context_id, read_questions
from consilience.training.config import DistilSettings, TrainConfig
from consilience.training.opening import opened_store
from consilience.training.optimising import arguments
from consilience.training.run import refresh_of
from consilience.training.session import Session
from consilience.training.settings import parse_settings
from consilience.training.student import cut_student
from consilience.training.teaching import SHIPPED, Teacher, opened_teacher
from data_sets import resampled
from model import LIBRARIES, Child, Work, build, inputs, same
from model import train as loss_and_gradients

PARTS = ("steps", "losses", "distil", "chinese")
MARKS = 4
"""Points of the curves of `chinese`."""

COMMON: dict[str, Any] = {
    "k": 5,
    "batch": 4,
    "steps": 10**7,
    "schedule": "constant",
    "warmup": 0,
    "log_every": 10**6,
    "report_to": [],
}
RETRIEVED = ["question_encoder", "generator", "temperature"]
EVERYTHING = ["question_encoder", "passage_encoder", "generator", "temperature"]
STUDENT: dict[str, Any] = {
    "objectives": {"distil": 1.0, "distil_posterior": 1.0, "distil_states": 1.0, "sequence": 0.5},
    "distil": {"teacher": SHIPPED, "hidden_size": 192},
    "train": EVERYTHING,
    "refresh": {"mode": "synchronous", "every": 500},
    "learning_rate": 5e-4,
}
FROM_TEXTS: dict[str, Any] = {
    "objectives": {"reader": 1.0, "info_nce": 1.0},
    "train": EVERYTHING,
    "learning_rate": 3e-4,
}


@dataclass(frozen=True, slots=True)
class Loss:
    """A row of the losses.

    Attributes:
        objectives: What is learned. Those that leave the generator as it is have `reader` beside
            them, which leaves the encoders as they are.
        fusion: How its answers are summed up.
        own: What learns beside the parts that learn in every row.
    """

    objectives: Mapping[str, float]
    fusion: Fusion = "sequence"
    own: tuple[str, ...] = ()


LOSSES: Mapping[str, Loss] = {
    "sequence (RAG-Sequence)": Loss({"sequence": 1.0}),
    "token (RAG-Token)": Loss({"token": 1.0}, "token"),
    "emdr2": Loss({"emdr2": 1.0}),
    "perplexity (PDist) + reader": Loss({"perplexity": 1.0, "reader": 1.0}),
    "attention (ADist) + reader": Loss({"attention": 1.0, "reader": 1.0}),
    "leave_one_out (LOOP) + reader": Loss({"leave_one_out": 1.0, "reader": 1.0}),
    "fid": Loss({"fid": 1.0}, "fid"),
    "average, weights of ranks learned": Loss({"average": 1.0}, "average", ("ranks",)),
    "concat": Loss({"concat": 1.0}, "concat"),
    "reader (generator only)": Loss({"reader": 1.0}),
    "info_nce, hard negatives, + reader": Loss({"info_nce": 1.0, "reader": 1.0}),
}


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
    """

    minutes: float
    questions: int
    corpus: int
    seed: int
    rate: float
    precision: str

    def told(self) -> str:
        """As the page says it."""
        return (
            f"{self.minutes:g} minutes of the processor a row, batches of {COMMON['batch']}, "
            f"seed {self.seed}, {self.precision}, {platform.machine()}, "
            f"{torch.get_num_threads()} threads"
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
    """A model, measured: `exact`, `f1` and `recall` have a value for every question."""

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
        **rest: Any,
    ) -> Row:
        """A model on the dev questions, found by its own vectors.

        Args:
            name: Of the row.
            model: None for the one that ships.
            store: With the vectors of this model; None to make one.
            fusion: How answers are summed up.
            **rest: Of the row.
        """
        ask = AskOptions(k=5, mode="dense", beams=1, abstain=False, fusion=fusion)
        options = EvaluationOptions(ask=ask, scoring=Scoring(overlap=False))
        rag, place = Rag.load(model), store or self.store_for(model)
        with Store.open(place, encoder=rag.encoder) as opened:
            values = [one.values for one in evaluate(rag, opened, self.task.dev, options).records]
        each = {key: [one[key] for one in values] for key in ("exact_match", "f1", "recall@5")}
        row = Row(name, each["exact_match"], each["f1"], each["recall@5"], **rest)
        print(json.dumps({"row": name} | {k: mean(v) for k, v in each.items()} | rest), flush=True)
        return row

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


def small_start(folder: Path, layers: Sequence[int]) -> Path:
    """The shipped model with fewer layers, not taught again; encoder and decoder in this order."""
    sizes = DistilSettings(SHIPPED, encoder_layers=layers[0], decoder_layers=layers[1])
    return cut_student(Rag.load(), sizes, folder / "small")


def random_start(folder: Path, seed: int) -> Path:
    """A model of the shape of the one that ships, of random weights."""
    parts = Rag.load().parts
    assert isinstance(parts.origin, ModelFolder)
    draw = torch.Generator().manual_seed(seed)
    tensors = {
        name: _random(name, value.float(), draw).contiguous() for name, value in tensors_of(parts)
    }
    tokenizer = (parts.origin.path / "tokenizer.json").read_text(encoding="utf-8")
    write_folder(folder / "random", parts.origin.config, tensors, tokenizer)
    return folder / "random"


def _random(name: str, value: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """As BERT begins: normal of 0.02, norms of one, no biases."""
    if value.dim() > 1:
        return 0.02 * torch.randn(value.shape, generator=draw)
    return torch.ones_like(value) if name.endswith("LayerNorm.weight") else torch.zeros_like(value)


def parameters(model: Path | None) -> int:
    """Of a model, in all."""
    return sum(value.numel() for _, value in tensors_of(Rag.load(model).parts))


def losses(folder: Path, data: Path, scale: Scale, options: argparse.Namespace) -> str:
    """The section of the losses."""
    bench = Bench(folder, task_of(data / "squad_v11", scale), scale)
    start = options.start or small_start(folder, options.layers)
    store = bench.store_for(start)
    common = {
        "model": str(start),
        "store": str(store),
        "learning_rate": scale.rate,
    }
    rows = [bench.measured("start, untrained", start, store=store)]
    for name, loss in LOSSES.items():
        own = {"objectives": dict(loss.objectives), "train": [*RETRIEVED, *loss.own]}
        (model,), seen = bench.trained(common | own)
        rows.append(bench.measured(name, model, store=store, fusion=loss.fusion, seen=seen))
    which = (
        f"the model in {options.start.name}"
        if options.start
        else (
            f"the model that ships with {options.layers[0]} layers in each encoder and "
            f"{options.layers[1]} in the decoder, not taught again"
        )
    )
    how = (
        f"squad_v11: {len(bench.task.passages):,} paragraphs, {len(bench.task.train):,} questions "
        f"to learn from, {len(bench.task.dev)} dev questions. Every row begins with {which} "
        f"({parameters(start):,} parameters), moves the question encoder, the generator and the "
        f"temperature, and has {scale.told()}, learning rate {scale.rate:g}. Passages are found by "
        "vectors, answers are greedy. BM25 finds the paragraph among five in "
        f"{interval(bench.bm25(store, start))} % of the questions."
    )
    return section("Losses on the same work", how, table(rows))


def distil(folder: Path, data: Path, scale: Scale, options: argparse.Namespace) -> str:
    """The section of the student."""
    del options
    bench = Bench(folder, task_of(data / "squad_v11", scale), scale)
    untaught = cut_student(
        Rag.load(), DistilSettings(SHIPPED, hidden_size=192), folder / "untaught"
    )
    rows = [
        bench.measured("teacher, the model that ships", None, note=f"{parameters(None):,}"),
        bench.measured("student, cut", untaught, note=f"{parameters(untaught):,}"),
    ]
    (model,), seen = bench.trained(STUDENT | {"store": str(bench.store_for(None))})
    rows.append(bench.measured("student, taught", model, seen=seen, note=f"{parameters(model):,}"))
    share = statistics.fmean(rows[2].f1) / max(1e-9, statistics.fmean(rows[0].f1))
    how = (
        f"squad_v11: {len(bench.task.passages):,} paragraphs, {len(bench.task.dev)} dev questions, "
        f"{scale.told()}. The student learns from the train questions what its teacher's sum says "
        f"of every word, and has {share:.0%} of its F1."
    )
    return section("A student and its teacher", how, table(rows, note="parameters"))


def chinese(folder: Path, data: Path, scale: Scale, options: argparse.Namespace) -> str:
    """The section of what English is worth to Chinese."""
    nothing = random_start(folder, scale.seed)
    english = options.english or _english(folder / "english", data, scale, nothing, options)
    task = task_of(data / "cmrc2018", scale)
    quarter = random.Random(scale.seed).sample(task.train, max(1, len(task.train) // 4))
    bench = Bench(folder / "chinese", replace(task, train=tuple(quarter)), scale)
    rows = []
    for name, model in (("trained on English", english), ("random", nothing)):
        rows.append(bench.measured(name, model, note="0"))
        places, seen = bench.trained(FROM_TEXTS | {"model": str(model)}, marks=MARKS)
        for mark, place in enumerate(places, start=1):
            minutes = scale.minutes * mark / MARKS
            found = bench.measured(name, place, note=f"{minutes:g}", seen=seen * mark // MARKS)
            rows.append(found)
    before = (
        f"in {options.english.name}"
        if options.english
        else f"trained here on squad_v11 for {options.pretrain:g} minutes from random weights"
    )
    how = (
        f"cmrc2018: {len(quarter):,} questions to learn from, a quarter of what there is, "
        f"{len(bench.task.passages):,} paragraphs, {len(bench.task.dev)} dev questions, "
        f"{scale.told()}; everything moves. The English model is {before}. Both have the shape and "
        "the vocabulary of the model that ships. Examples at a mark are a share of those at the "
        "end."
    )
    return section("Chinese from English and from nothing", how, table(rows, note="minutes"))


def _english(
    folder: Path, data: Path, scale: Scale, start: Path, options: argparse.Namespace
) -> Path:
    """Random weights after so many minutes of English questions."""
    longer = replace(scale, minutes=options.pretrain)
    bench = Bench(folder, task_of(data / "squad_v11", longer), longer)
    (place,), seen = bench.trained(FROM_TEXTS | {"model": str(start)})
    print(json.dumps({"english": str(place), "seen": seen}), flush=True)
    return place


def table(rows: Sequence[Row], *, note: str = "") -> list[str]:
    """Rows as Markdown, in percent with intervals."""
    heads = ["", *([note] if note else []), "EM", "F1", "recall@5", "examples seen"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for row in rows:
        figures = [interval(values) for values in (row.exact, row.f1, row.recall)]
        cells = [row.name, *([row.note] if note else []), *figures, f"{row.seen:,}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


class Stepping(Child):
    """A library that takes steps, in a process of its own."""

    def __init__(self, library: str, threads: int) -> None:
        command = [sys.executable, __file__, "--serve", library, "--threads", str(threads)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ,
        )


def serve(library: str, threads: int) -> None:
    """A child: a line with a kind of model comes in, a line with the times of a step goes out."""
    torch.set_num_threads(threads)
    work = Work()
    given = inputs(work)
    models: dict[str, tuple[Any, torch.optim.Optimizer]] = {}
    for line in sys.stdin:
        kind = line.strip()
        if kind not in models:
            made = build(library, kind, work)
            models = {kind: (made, torch.optim.AdamW(made.parameters(), lr=2e-5))}
        model, optimiser = models[kind]
        begun, used = time.perf_counter(), time.process_time()
        result = loss_and_gradients(library, model, given, work)
        optimiser.step()
        spent = {"wall": time.perf_counter() - begun, "cpu": time.process_time() - used}
        print(json.dumps({**spent, "result": result}), flush=True)


def steps(folder: Path, data: Path, scale: Scale, options: argparse.Namespace) -> str:
    """The section of the steps."""
    del folder, data, scale
    children = {name: Stepping(name, options.threads) for name in LIBRARIES}
    found = {kind: list(_turns(children, kind, options.runs)) for kind in ("token", "sequence")}
    for child in children.values():
        child.close()
    work = Work()
    how = (
        f"Loss, gradients and AdamW over {work.questions} questions with {work.passages} passages "
        f"of {work.length} tokens and answers of {work.steps}; question encoder of {work.layers} "
        f"layers, BART with {work.layers} + {work.layers} of width {work.hidden}, vocabulary "
        f"{work.vocabulary:,}; random weights, seed 0, no dropout, float32, {platform.machine()}, "
        f"{options.threads} threads. Medians of {options.runs} steps after one that is "
        "not counted, with the fastest and the slowest; the libraries take turns."
    )
    heads = (
        "| | transformers s | ours s | times as fast | steps a second | processor seconds "
        "| same losses |"
    )
    lines = [heads, f"|{'---|' * 7}", *(_step_line(kind, turns) for kind, turns in found.items())]
    return section("A step beside transformers", how, lines)


def _turns(children: Mapping[str, Child], kind: str, runs: int) -> Iterator[dict[str, Any]]:
    """Steps of both libraries in turn; the first warms up."""
    for turn in range(runs + 1):
        yield {"turn": turn, **{name: child.run(kind) for name, child in children.items()}}


def _step_line(kind: str, turns: Sequence[Mapping[str, Any]]) -> str:
    alike = all(
        same(f"{kind} loss", turn["ours"]["result"][:1], turn["transformers"]["result"][:1])
        for turn in turns
    )
    wall = {name: [turn[name]["wall"] for turn in islice(turns, 1, None)] for name in LIBRARIES}
    cpu = {name: statistics.median(t[name]["cpu"] for t in turns[1:]) for name in LIBRARIES}
    ours, theirs = (statistics.median(wall[name]) for name in ("ours", "transformers"))
    print(json.dumps({"steps": kind, "ours": ours, "transformers": theirs, "same": alike}))
    return (
        f"| {kind} | {_spread(wall['transformers'])} | {_spread(wall['ours'])} "
        f"| {theirs / ours:.1f} | {1 / theirs:.2f} and {1 / ours:.2f} "
        f"| {cpu['transformers'] / cpu['ours']:.1f} times fewer | {'yes' if alike else 'NO'} |"
    )


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def section(title: str, how: str, lines: Sequence[str]) -> str:
    """A part of the page."""
    return "\n".join([f"## {title}", "", how, "", *lines, ""])


TITLE = "# Training"
BEFORE = (
    "Written by `python benchmarks/training.py --data DIR`; each section by its `--parts`. "
    "Intervals of 95 % over questions; rows that differ by less say nothing."
)


def merged(page: str, fresh: str) -> str:
    """A page in which a section is replaced, or added."""
    title = fresh.splitlines()[0]
    found = [one.strip() + "\n" for one in re.split(r"(?m)^(?=## )", page)[1:]]
    kept = [fresh if one.splitlines()[0] == title else one for one in found]
    if fresh not in kept:
        kept.append(fresh)
    return "\n".join([TITLE, "", BEFORE, "", *kept])


def main() -> None:
    """Run the parts asked for, and write the page."""
    args = _parsed()
    if args.serve:
        serve(args.serve, args.threads)
        return
    if args.data is None and set(args.parts) != {"steps"}:
        raise SystemExit("--data: name the folder of open data sets")
    scale = Scale(args.minutes, args.questions, args.corpus, args.seed, args.rate, args.precision)
    page = args.out.read_text("utf-8") if args.out and args.out.is_file() else ""
    known = {"steps": steps, "losses": losses, "distil": distil, "chinese": chinese}
    for part in args.parts:
        with tempfile.TemporaryDirectory() as folder:
            page = merged(page, known[part](Path(folder), args.data, scale, args))
        if args.out:
            args.out.write_text(page, encoding="utf-8")
    if not args.out:
        print(page)


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--data", type=Path, help="folder of open data sets")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--minutes", type=float, default=10, help="of the processor, for a row")
    parser.add_argument("--questions", type=int, default=300, help="of dev")
    parser.add_argument("--corpus", type=int, default=3000, help="paragraphs at most")
    parser.add_argument("--rate", type=float, default=5e-5, help="learning rate of the losses")
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default=str(fastest_dtype()).removeprefix("torch."),
        help="of training; what this processor multiplies fastest, if not given",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="model that the losses begin with")
    parser.add_argument("--layers", type=int, nargs=2, default=(3, 2), help="of that start, if cut")
    parser.add_argument("--english", type=Path, help="model that was trained on English")
    parser.add_argument("--pretrain", type=float, default=30, help="minutes of English, without it")
    parser.add_argument("--runs", type=int, default=10, help="of the steps")
    parser.add_argument("--threads", type=int, default=2, help="of the steps")
    parser.add_argument("--serve", choices=LIBRARIES, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
