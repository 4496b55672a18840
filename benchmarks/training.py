"""What training costs and what it is worth, in four parts that can be run one by one.

steps: a step of joint training, the passages being found, beside transformers' RAG classes on the
same random weights: loss, gradients, AdamW. Each library has a process of its own, they take turns,
and the losses of every step are compared.

losses: every joint loss on the same questions, from the same model, which reads well and finds
badly, for the same seconds of the processor. The seconds are those of the whole process from the
moment at which a row begins: loading, looking for hard negatives, retrieval and its refresh
included.

distil: students of a third and of three quarters of the parameters, before and after they were
taught, and their teacher.

chinese: a model that was trained on English learns to read Chinese from a quarter of the examples,
and one that was not, which begins where the English one began, from all; points along the way.

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
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from consilience import Rag
from consilience.encoding.compact import fastest_dtype
from consilience.model.fusion import Fusion
from consilience.training.config import DistilSettings
from consilience.training.student import cut_student
from consilience.training.teaching import SHIPPED
from model import LIBRARIES, Child, Work, build, inputs, same
from model import train as loss_and_gradients
from teaching import (
    Bench,
    Row,
    Scale,
    blank_start,
    interval,
    mean,
    parameters,
    random_start,
    task_of,
)

PARTS = ("steps", "losses", "distil", "chinese")
MARKS = 4
"""Points of the curves of `chinese`."""
ENGLISH, UNTAUGHT = "trained on English", "not trained on English"

RETRIEVED = ["question_encoder", "generator", "temperature"]
EVERYTHING = ["question_encoder", "passage_encoder", "generator", "temperature"]
STUDENT: dict[str, Any] = {
    "objectives": {"distil": 1.0, "distil_posterior": 1.0, "distil_states": 1.0, "sequence": 0.5},
    "train": EVERYTHING,
    "refresh": {"mode": "synchronous", "every": 500},
    "k": 3,
    "warmup": 10,
}
STUDENTS: Mapping[str, tuple[Mapping[str, Any], float]] = {
    "half as wide": ({"hidden_size": 192}, 5e-4),
    "4 and 2 layers": ({"encoder_layers": 4, "decoder_layers": 2}, 1e-4),
}
"""Sizes of students by name, and the rates that they learn with: a narrow one begins from nearly
nothing, and one with fewer layers would lose what it has."""
FROM_TEXTS: dict[str, Any] = {
    "objectives": {"reader": 1.0},
    "train": ["generator"],
    "batch": 16,
    "learning_rate": 3e-4,
    "warmup": 30,
}


@dataclass(frozen=True, slots=True)
class Loss:
    """A row of the losses.

    Attributes:
        objectives: What is learned. Those that leave the generator as it is have `reader` beside
            them, which leaves the encoders as they are.
        fusion: How its answers are summed up.
        settings: What else is not as in every row.
    """

    objectives: Mapping[str, float]
    fusion: Fusion = "sequence"
    settings: Mapping[str, Any] = field(default_factory=dict)


GENERATOR_ONLY = "reader (generator only)"
LOSSES: Mapping[str, Loss] = {
    "sequence (RAG-Sequence)": Loss({"sequence": 1.0}),
    "sequence, the right passage always among them": Loss(
        {"sequence": 1.0}, settings={"add_positive": True}
    ),
    "token (RAG-Token)": Loss({"token": 1.0}, "token"),
    "emdr2": Loss({"emdr2": 1.0}),
    "perplexity (PDist) + reader": Loss({"perplexity": 1.0, "reader": 1.0}),
    "attention (ADist) + reader": Loss({"attention": 1.0, "reader": 1.0}),
    "leave_one_out (LOOP) + reader": Loss({"leave_one_out": 1.0, "reader": 1.0}),
    "fid": Loss({"fid": 1.0}, "fid"),
    "average, weights of ranks learned": Loss(
        {"average": 1.0}, "average", {"train": [*RETRIEVED, "ranks"]}
    ),
    "concat": Loss({"concat": 1.0}, "concat"),
    GENERATOR_ONLY: Loss({"reader": 1.0}),
    "info_nce, hard negatives, + reader": Loss({"info_nce": 1.0, "reader": 1.0}),
    "info_nce, hard negatives (retriever only), batches of 16": Loss(
        {"info_nce": 1.0}, settings={"train": ["question_encoder"], "batch": 16}
    ),
}


def at_once(scale: Scale, work: Callable[[str], Any], names: Sequence[str]) -> list[Any]:
    """What `work` makes of each name, in their order, each in a process of its own."""
    with ProcessPoolExecutor(
        scale.jobs,
        mp_context=get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(scale.each,),
        max_tasks_per_child=1,
    ) as pool:
        return list(pool.map(work, names))


def losses(folder: Path, data: Path, scale: Scale, options: argparse.Namespace) -> str:
    """The section of the losses."""
    source = data / "squad_v11"
    bench = Bench(folder / "start", task_of(source, scale), scale)
    start = options.start or blank_start(folder / "blank", options.blank, scale.seed)
    store = bench.store_for(start)
    first = bench.measured("start, untrained", start, store=store)
    taught = at_once(scale, partial(taught_by, folder, source, scale, start, store), list(LOSSES))
    which = (
        f"the model in {options.start.name}"
        if options.start
        else (
            "the model that ships, but for a question encoder of its own, of which the last layers "
            f"({options.blank}) were drawn anew"
        )
    )
    how = (
        f"squad_v11: {len(bench.task.passages):,} paragraphs, {len(bench.task.train):,} questions "
        f"to learn from, {len(bench.task.dev)} dev questions. Every row begins with {which} "
        f"({parameters(start):,} parameters), moves the question encoder, the generator and the "
        f"temperature where it says nothing else, and has {scale.told()}, learning rate "
        f"{scale.rate:g}. Passages are found by vectors, answers are greedy. BM25 finds the "
        f"paragraph among five in {interval(bench.bm25(store, start))} % of the questions. The "
        "last two columns are paired differences of the same questions: exact match with the row "
        "that trains the generator only, recall with the start."
    )
    generator_only = next(row for row in taught if row.name == GENERATOR_ONLY)
    beside = {row.name: gains(row, generator_only, first) for row in taught}
    return section("Losses on the same work", how, table([first, *taught], beside=beside))


def taught_by(folder: Path, source: Path, scale: Scale, start: Path, store: Path, name: str) -> Row:
    """A row of the losses."""
    loss = LOSSES[name]
    bench = Bench(folder / str(list(LOSSES).index(name)), task_of(source, scale), scale)
    settings = {
        "model": str(start),
        "store": str(store),
        "learning_rate": scale.rate,
        "objectives": dict(loss.objectives),
        "train": RETRIEVED,
        **loss.settings,
    }
    (model,), seen = bench.trained(settings)
    return bench.measured(name, model, store=store, fusion=loss.fusion, seen=seen)


def gains(row: Row, generator_only: Row, start: Row) -> tuple[str, str]:
    """Exact match above one row, recall above another, paired."""
    pairs = (row.exact, generator_only.exact), (row.recall, start.recall)
    exact, recall = ([a - b for a, b in zip(*pair, strict=True)] for pair in pairs)
    return interval(exact), interval(recall)


def distil(folder: Path, data: Path, scale: Scale, options: argparse.Namespace) -> str:
    """The section of the students."""
    del options
    source = data / "squad_v11"
    bench = Bench(folder / "teacher", task_of(source, scale), scale)
    store = bench.store_for(None)
    whole = parameters(None)
    teacher = bench.measured(
        "teacher, the model that ships", None, store=store, note=f"{whole:,} (100 %)"
    )
    pairs = at_once(scale, partial(student, folder, source, scale, store, whole), list(STUDENTS))
    kept = [
        f"{name}: {statistics.fmean(taught.f1) / max(1e-9, statistics.fmean(teacher.f1)):.0%}"
        for name, (_, taught) in zip(STUDENTS, pairs, strict=True)
    ]
    how = (
        f"squad_v11: {len(bench.task.passages):,} paragraphs, {len(bench.task.dev)} dev questions, "
        f"{scale.told()}. The students learn from the train questions what their teacher's sum "
        f"says of every word, over {STUDENT['k']} passages. They have so much of its F1: "
        f"{', '.join(kept)}."
    )
    rows = [teacher, *chain.from_iterable(pairs)]
    return section("Students and their teacher", how, table(rows, note="parameters"))


def student(
    folder: Path, source: Path, scale: Scale, store: Path, whole: int, name: str
) -> tuple[Row, Row]:
    """A student as it was cut, and as it was taught."""
    sizes, rate = STUDENTS[name]
    bench = Bench(folder / name.replace(" ", "-"), task_of(source, scale), scale)
    cut = cut_student(Rag.load(), DistilSettings(SHIPPED, **sizes), bench.folder / "cut")
    count = parameters(cut)
    note = f"{count:,} ({count / whole:.0%})"
    before = bench.measured(f"{name}, cut", cut, note=note)
    asked = {"model": str(cut), "learning_rate": rate, "store": str(store)}
    (model,), seen = bench.trained(STUDENT | {"distil": {"teacher": SHIPPED}} | asked)
    return before, bench.measured(f"{name}, taught", model, seen=seen, note=note)


def chinese(folder: Path, data: Path, scale: Scale, options: argparse.Namespace) -> str:
    """The section of what English is worth to Chinese."""
    untaught = options.begin or random_start(folder / "random", scale.seed)
    english = options.english or folder / "english"
    if not english.exists():
        _english(english, data, scale, untaught, options)
    source = data / "cmrc2018"
    task = task_of(source, scale)
    starts = {ENGLISH: (english, len(task.train) // 4), UNTAUGHT: (untaught, len(task.train))}
    curves = at_once(scale, partial(curve, folder, source, scale, starts), list(starts))
    begun = "the recipe's model before its first step" if options.begin else "random weights"
    transferred, scratch = curves[0], curves[1][-1]
    equal = [row for row in transferred if mean(row.f1) >= mean(scratch.f1)]
    reached = (
        f"which the English model reaches or passes from minute {equal[0].note} on"
        if equal
        else "which the English model does not reach"
    )
    how = (
        f"cmrc2018: the English model learns from {starts[ENGLISH][1]:,} questions, a quarter of "
        f"what there is, the other from all {starts[UNTAUGHT][1]:,}; {len(task.passages):,} "
        f"paragraphs, {len(task.dev)} dev questions, {scale.told(FROM_TEXTS['batch'])}; the "
        f"generator learns, by the reader's objective. Both began as {begun}, in the shape and the "
        f"vocabulary of the model that ships; the English model then read squad_v11 for "
        f"{options.pretrain:g} minutes. EM and F1 are those of reading the right paragraph, recall "
        "is that of vectors among all. Examples at a mark are a share of those at the end, repeats "
        f"included. At the end, {scratch.seen / starts[UNTAUGHT][1]:.1f} times through its "
        f"questions and still learning, the model without English has an F1 of "
        f"{mean(scratch.f1)}, {reached}; at the end it has {mean(transferred[-1].f1)}."
    )
    rows = list(chain.from_iterable(curves))
    title = "Chinese with and without English"
    return section(title, how, [*plot(curves, scale), "", *table(rows, note="minutes")])


def curve(
    folder: Path, source: Path, scale: Scale, starts: Mapping[str, tuple[Path, int]], name: str
) -> list[Row]:
    """A start that learns Chinese, at its marks."""
    model, count = starts[name]
    task = task_of(source, scale)
    learned = tuple(random.Random(scale.seed).sample(task.train, count))
    bench = Bench(folder / name.split()[0], replace(task, train=learned), scale)
    rows = [bench.measured(name, model, right=True, note="0")]
    places, seen = bench.trained(FROM_TEXTS | {"model": str(model)}, marks=MARKS)
    for mark, place in enumerate(places, start=1):
        note, part = f"{scale.minutes * mark / MARKS:g}", seen * mark // MARKS
        rows.append(bench.measured(name, place, right=True, note=note, seen=part))
    return rows


def plot(curves: Sequence[Sequence[Row]], scale: Scale) -> list[str]:
    """F1 over minutes as a Mermaid chart, a line for each start."""
    marks = ", ".join(f"{scale.minutes * mark / MARKS:g}" for mark in range(MARKS + 1))
    tallest = max(mean(row.f1) for rows in curves for row in rows)
    lines = [f"    line [{', '.join(str(mean(row.f1)) for row in rows)}]" for rows in curves]
    return [
        "```mermaid",
        "xychart-beta",
        f'    title "F1 on the right paragraph: {" and ".join(rows[0].name for rows in curves)}"',
        f'    x-axis "minutes of the processor" [{marks}]',
        f'    y-axis "F1" 0 --> {10 * (int(tallest / 10) + 1)}',
        *lines,
        "```",
    ]


def _english(
    place: Path, data: Path, scale: Scale, untaught: Path, options: argparse.Namespace
) -> None:
    """A start after so many minutes of English questions, at a place."""
    longer = replace(scale, minutes=options.pretrain)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), task_of(data / "squad_v11", longer), longer)
        (model,), seen = bench.trained(FROM_TEXTS | {"model": str(untaught)})
        bench.measured("English", model, right=True, seen=seen)
        shutil.copytree(model, place)


def table(
    rows: Sequence[Row], *, note: str = "", beside: Mapping[str, tuple[str, str]] | None = None
) -> list[str]:
    """Rows as Markdown, in percent with intervals; `beside` has two more cells for some rows."""
    more = ["EM over generator only", "recall over start"] if beside else []
    heads = ["", *([note] if note else []), "EM", "F1", "recall@5", "examples seen", *more]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for row in rows:
        figures = [interval(values) for values in (row.exact, row.f1, row.recall)]
        cells = [row.name, *([row.note] if note else []), *figures, f"{row.seen:,}"]
        cells += (beside or {}).get(row.name, ("", "")[: len(more)])
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
    """A child: a line with a kind of step comes in, a line with its times goes out."""
    torch.set_num_threads(threads)
    work = Work()
    given = inputs(work)
    models: dict[str, tuple[Any, torch.optim.Optimizer]] = {}
    for line in sys.stdin:
        kind = line.strip()
        sum_, _, precision = kind.partition(" ")
        if kind not in models:
            made = build(library, sum_, work)
            # In one pass over every weight, as the trainers of both libraries have it.
            models = {kind: (made, torch.optim.AdamW(made.parameters(), lr=2e-5, fused=True))}
        model, optimiser = models[kind]
        begun, used = time.perf_counter(), time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            result = loss_and_gradients(library, model, given, work)
        optimiser.step()
        spent = {"wall": time.perf_counter() - begun, "cpu": time.process_time() - used}
        print(json.dumps({**spent, "result": result}), flush=True)


def steps(folder: Path, data: Path, scale: Scale, options: argparse.Namespace) -> str:
    """The section of the steps."""
    del folder, data
    children = {name: Stepping(name, options.threads) for name in LIBRARIES}
    precisions = dict.fromkeys(("float32", scale.precision))
    kinds = [f"{sum_} {precision}" for precision in precisions for sum_ in ("token", "sequence")]
    found = {kind: list(_turns(children, kind, options.runs)) for kind in kinds}
    for child in children.values():
        child.close()
    work = Work()
    how = (
        f"Loss, gradients and AdamW (fused) over {work.questions} questions with {work.passages} "
        f"passages of {work.length} tokens and answers of {work.steps}; question encoder of "
        f"{work.layers} layers, BART with {work.layers} + {work.layers} of width {work.hidden}, "
        f"vocabulary {work.vocabulary:,}; random weights, seed 0, no dropout, "
        f"{platform.machine()}, {options.threads} threads; bfloat16 is autocast, as for both. "
        f"Medians of {options.runs} steps after one that is not counted, with the fastest and the "
        "slowest; the libraries take turns."
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
        same(kind, turn["ours"]["result"][:1], turn["transformers"]["result"][:1]) for turn in turns
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
    scale = Scale(
        args.minutes,
        args.questions,
        args.corpus,
        args.seed,
        args.rate,
        args.precision,
        args.jobs,
        args.threads,
    )
    torch.set_num_threads(scale.threads)
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
    parser.add_argument("--rate", type=float, default=2e-5, help="learning rate of the losses")
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default=str(fastest_dtype()).removeprefix("torch."),
        help="of training; what this processor multiplies fastest, if not given",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="model that the losses begin with")
    parser.add_argument(
        "--blank", type=int, default=1, help="layers of its question encoder drawn anew, without it"
    )
    parser.add_argument("--english", type=Path, help="where the English model is kept, once made")
    parser.add_argument("--pretrain", type=float, default=30, help="minutes of English")
    parser.add_argument(
        "--begin",
        type=Path,
        help="the model that both begin with, such as the recipe's stage `vocabulary` makes",
    )
    parser.add_argument("--runs", type=int, default=10, help="of the steps")
    parser.add_argument("--threads", type=int, default=2, help="of the processor")
    parser.add_argument("--jobs", type=int, default=2, help="rows that are made at once")
    parser.add_argument("--serve", choices=LIBRARIES, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
