"""How fast the shipped model answers one user and sixteen, through the desk that serves them.

One store holds the documents of the three organisations of the example corpus. The same questions
are asked one after another and all at once, and must have the same answers. Every figure is the
best of several rounds, since other work on the machine only ever takes time away; beside it stands
the processor time of the round, which waiting for a busy machine does not count.

    python benchmarks/serving.py --out docs/benchmarks/serving.md
"""

import argparse
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from consilience import Rag, Store
from consilience.generation import CompactGenerator, Pair
from consilience.model import Answer, AskOptions, Piece
from consilience.model.answering import Clock
from consilience.questions import read_questions
from consilience.serving.desk import Desk, DeskLimits, Retrieved, Ticket

EXAMPLES = Path(__file__).parent.parent / "examples" / "three_organisations"
ORGANISATIONS = ("hospital", "bank", "university")

T = TypeVar("T")

STAGES = ("retrieve", "read", "write", "cite")


@dataclass(frozen=True, slots=True)
class Spent:
    """What a round took, in seconds of the clock and of the processor."""

    wall: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: what was measured, its value, and in what."""

    name: str
    value: float
    unit: str

    def markdown(self) -> str:
        """As a row of a table."""
        return f"| {self.name} | {self.value:.3g} | {self.unit} |"


def timed(work: Callable[[], T]) -> tuple[T, Spent]:
    """What some work gives, and what it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return found, Spent(time.perf_counter() - wall, time.process_time() - cpu)


def least(rounds: Sequence[Spent]) -> Spent:
    """The least of several rounds, by the clock and by the processor."""
    return Spent(min(one.wall for one in rounds), min(one.cpu for one in rounds))


def answer_of(ticket: Ticket) -> Answer:
    """The answer that a ticket ends with."""
    *_, last = ticket.pieces()
    assert isinstance(last, Piece)
    assert last.answer is not None
    return last.answer


def one_after_another(desk: Desk, asked: Sequence[str], options: AskOptions) -> list[Answer]:
    """Every question when the one before it is answered."""
    return [answer_of(desk.submit(question, options)) for question in asked]


def all_at_once(desk: Desk, asked: Sequence[str], options: AskOptions) -> list[Answer]:
    """Every question at the same moment."""
    tickets = [desk.submit(question, options) for question in asked]
    return [answer_of(ticket) for ticket in tickets]


def first_token(desk: Desk, question: str, options: AskOptions) -> tuple[float, float]:
    """Seconds until the passages and until the first piece of the answer, at one user."""
    began, seen = time.perf_counter(), dict[type, float]()
    for event in desk.submit(question, options).pieces():
        seen.setdefault(type(event), time.perf_counter() - began)
    return seen[Retrieved], seen[Piece]


def require_same(one: Sequence[Answer], other: Sequence[Answer]) -> None:
    """Stop when an answer depends on the company that its question was in."""
    for alone, together in zip(one, other, strict=True):
        shares = zip(alone.posterior.values(), together.posterior.values(), strict=True)
        if alone.text != together.text or any(abs(a - b) > 1e-5 for a, b in shares):
            raise SystemExit(
                f"{alone.question!r}: {alone.text!r} alone, {together.text!r} together"
            )


def throughput(desk: Desk, asked: Sequence[str], options: AskOptions, rounds: int) -> list[Row]:
    """Questions a second one after another and all at once, and how much more that is."""
    alone, together = [], []
    for _ in range(rounds):
        first, spent = timed(lambda: one_after_another(desk, asked, options))
        alone.append(spent)
        second, spent = timed(lambda: all_at_once(desk, asked, options))
        together.append(spent)
        require_same(first, second)
    n, one, many = len(asked), least(alone), least(together)
    return [
        Row("one after another", n / one.wall, "questions/s"),
        Row(f"{n} at once", n / many.wall, "questions/s"),
        Row("at once, against one after another", one.wall / many.wall, "times"),
        Row("one after another, processor", 1000 * one.cpu / n, "ms a question"),
        Row(f"{n} at once, processor", 1000 * many.cpu / n, "ms a question"),
    ]


def latency(desk: Desk, asked: Sequence[str], options: AskOptions, rounds: int) -> list[Row]:
    """Until the first token at one user: of each question the best round, then the median."""
    measured = [[first_token(desk, question, options) for _ in range(rounds)] for question in asked]
    best = [min(one, key=lambda spent: spent[1]) for one in measured]
    return [
        Row("passages, p50", 1000 * statistics.median(found for found, _ in best), "ms"),
        Row("first token, p50", 1000 * statistics.median(spent for _, spent in best), "ms"),
    ]


def stages(rag: Rag, store: Store, asked: Sequence[str], options: AskOptions) -> list[Row]:
    """Where the time of an `ask` goes, at the median."""
    answers = [rag.ask(question, store, options) for question in asked]
    return [
        Row(f"ask: {stage}", statistics.median(one.timings_ms[stage] for one in answers), "ms")
        for stage in STAGES
    ]


def floor(rag: Rag, store: Store, asked: Sequence[str], options: AskOptions) -> list[Row]:
    """What the products of the reader's layers take here at the speed of large ones."""
    generator = rag.model.generator
    assert isinstance(generator, CompactGenerator)
    weights = sum(one.numel() for one in generator.reader.parameters())
    tokens = sum(map(partial(tokens_of, generator), passages_of(rag, store, asked, options)))
    operations, speed = 2 * weights * tokens / len(asked), product_speed()
    return [
        Row("reading, arithmetic", operations / 1e9, "GFLOP a question"),
        Row("matrix products", speed / 1e9, "GFLOP/s"),
        Row("reading, at least", 1000 * operations / speed, "ms a question"),
    ]


def passages_of(
    rag: Rag, store: Store, asked: Sequence[str], options: AskOptions
) -> Iterator[list[Pair]]:
    """What is read for each question."""
    for question in asked:
        found = rag.look_up(question, store, options, Clock())
        yield [Pair(question, hit.passage.title, hit.passage.text) for hit in found.hits]


def tokens_of(generator: CompactGenerator, pairs: Sequence[Pair]) -> int:
    """Tokens of question and passages together."""
    return int(generator.rows(pairs).mask.sum())


def product_speed() -> float:
    """Operations a second of a product of the reader's shape, at best."""
    import torch

    left, right = torch.randn(1000, 384), torch.randn(384, 1536)
    left @ right
    fastest = least([timed(lambda: left @ right)[1] for _ in range(50)])
    return 2 * 1000 * 384 * 1536 / fastest.wall


@contextmanager
def corpus(rag: Rag) -> Iterator[Store]:
    """The documents of the three organisations in one store."""
    with tempfile.TemporaryDirectory() as folder, Store.open(folder, encoder=rag.encoder) as store:
        for organisation in ORGANISATIONS:
            store.add(EXAMPLES / organisation / "documents")
        yield store


def some_questions(count: int) -> list[str]:
    """Questions of all organisations, in an order that stays the same."""
    files = [EXAMPLES / one / "questions" / "dev.jsonl" for one in ORGANISATIONS]
    found = [one.question for file in files for one in read_questions(file) if not one.history]
    random.Random(0).shuffle(found)
    return found[:count]


def measured(rag: Rag, users: int, rounds: int) -> list[Row]:
    """All figures of the desk."""
    asked, options = some_questions(users), AskOptions()
    with corpus(rag) as store:
        rag.ask(asked[0], store, options)
        desk = Desk(rag, store, limits=DeskLimits(concurrent=users))
        try:
            rows = throughput(desk, asked, options, rounds)
            rows += latency(desk, asked, options, rounds)
        finally:
            desk.close()
        return rows + stages(rag, store, asked, options) + floor(rag, store, asked, options)


def report(rows: Sequence[Row], args: argparse.Namespace) -> str:
    """The page of the results."""
    return "\n".join(
        [
            "# Serving",
            "",
            f"{args.users} questions over the example corpus, the shipped model, "
            f"{args.threads} threads, best of {args.rounds} rounds; "
            f"Python {platform.python_version()}, {platform.machine()}.",
            "",
            "| | | |",
            "|---|---:|---|",
            *(row.markdown() for row in rows),
            "",
        ]
    )


def main() -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    # After consilience, which says how torch's threads wait and where its tensors lie.
    import torch

    torch.set_num_threads(args.threads)
    page = report(measured(Rag.load(args.model), args.users, args.rounds), args)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
