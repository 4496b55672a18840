"""What training together is worth: each party alone, together in several ways, and all data in one.

The three organisations of the example corpus, the model that ships, the same number of passes over
the questions in every row. F1 and recall of the right document are measured on each party's dev
questions over its own documents, and averaged by questions; intervals are bootstrapped over the
questions.

    python benchmarks/federation.py --rounds 2 --out docs/benchmarks/federation.md
"""

import argparse
import json
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from consilience import Rag, Store, evaluate
from consilience.evaluation import EvaluationOptions, Scoring
from consilience.federation.assembling import simulate
from consilience.federation.config import FederationConfig
from consilience.federation.rounds import Federated
from consilience.model import AskOptions
from consilience.questions import read_questions
from consilience.training.config import TrainConfig
from consilience.training.run import train
from consilience.training.settings import parse_settings, read_settings

CORPUS = Path(__file__).parent.parent / "examples" / "three_organisations"
ORGANISATIONS = ("hospital", "bank", "university")
LORA = {"kind": "lora", "rank": 8, "alpha": 16}
RECIPE: dict[str, Any] = {
    "objectives": {"sequence": 1.0},
    "train": ["question_encoder", "generator"],
    "k": 3,
    "batch": 4,
    "schedule": "constant",
    "warmup": 0,
    "evaluate_limit": 10,
    "report_to": [],
}
RATES = {"adapters": 1e-4, "full": 1e-5}


@dataclass(frozen=True, slots=True)
class Row:
    """A way of training, measured.

    Attributes:
        name: Of the way.
        f1: Of every dev question that has an answer.
        recall: 1 where the right document was among the first five, else 0.
        up: Bytes that a party sends in a round; None where nothing is sent.
        epsilon: Privacy spent; None without a budget.
    """

    name: str
    f1: Sequence[float]
    recall: Sequence[float]
    up: float | None = None
    epsilon: float | None = None


class Bench:
    """One run of the benchmark.

    Args:
        folder: For everything.
        rounds: Passes over the questions in every row.
        seed: Of the trainings.
    """

    def __init__(self, folder: Path, rounds: int, seed: int) -> None:
        self.folder, self.rounds, self.seed = folder, rounds, seed
        rag = Rag.load()
        for name in ORGANISATIONS:
            with Store.open(self.store(name), encoder=rag.encoder) as store:
                store.add(CORPUS / name / "documents")
        with Store.open(folder / "all", encoder=rag.encoder) as store:
            for name in ORGANISATIONS:
                store.add(CORPUS / name / "documents")

    def store(self, name: str) -> Path:
        """A party's knowledge base."""
        return self.folder / name

    def questions(self, name: str, split: str) -> Path:
        """A party's questions."""
        return CORPUS / name / "questions" / f"{split}.jsonl"

    def measured(self, name: str, models: Mapping[str, str | None], **rest: Any) -> Row:
        """A model on each party's dev questions over its own documents."""
        f1: list[float] = []
        recall: list[float] = []
        options = EvaluationOptions(
            ask=AskOptions(k=5, mode="dense", beams=1, abstain=False),
            scoring=Scoring(overlap=False),
        )
        for party, model in models.items():
            rag = Rag.load(model)
            questions = [q for q in read_questions(self.questions(party, "dev")) if q.answers]
            with Store.open(self.store(party), encoder=rag.encoder) as store:
                for record in evaluate(rag, store, questions, options).records:
                    f1.append(record.values["f1"])
                    recall.append(record.values.get("recall@5", 0.0))
        row = Row(name, f1, recall, **rest)
        print(json.dumps({"row": name, "f1": mean(f1), "recall": mean(recall), **rest}), flush=True)
        return row

    def central(self, names: Sequence[str], store: Path, label: str, kind: str) -> str:
        """A model trained in one place; where it is."""
        config = {
            **self.recipe(kind),
            "output": str(self.folder / "runs" / label),
            "store": str(store),
            "data": {"train": [str(self.questions(name, "train")) for name in names]},
            "steps": self.rounds * self.steps(names),
            "seed": self.seed,
        }
        found = train(parse_settings(TrainConfig, config, source="benchmark"))
        return str(found.output / "model")

    def recipe(self, kind: str) -> dict[str, Any]:
        """What all rows train by."""
        adapter = {"adapter": LORA} if kind == "adapters" else {}
        return RECIPE | adapter | {"learning_rate": RATES[kind]}

    def steps(self, names: Sequence[str]) -> int:
        """Of one pass."""
        found = [q for n in names for q in read_questions(self.questions(n, "train"))]
        learnable = [one for one in found if one.answers or one.unanswerable]
        return -(-len(learnable) // int(RECIPE["batch"]))

    def federated(self, label: str, kind: str, **settings: Any) -> Federated:
        """A federation of the three."""
        folder = self.folder / "runs" / label
        folder.mkdir(parents=True)
        recipe = written(folder / "recipe.yaml", self.recipe(kind))
        parties = [written(folder / f"{n}.yaml", self.party(folder, n)) for n in ORGANISATIONS]
        config = {
            "output": str(folder / "run"),
            "recipe": str(recipe),
            "parties": [str(path) for path in parties],
            "rounds": self.rounds,
            "seed": self.seed,
            **settings,
        }
        path = written(folder / "federation.yaml", config)
        return simulate(read_settings(FederationConfig, path, verb="federate"))

    def party(self, folder: Path, name: str) -> dict[str, Any]:
        """A party's file."""
        return {
            "name": name,
            "state": str(folder / name),
            "store": str(self.store(name)),
            "data": {"train": [str(self.questions(name, "train"))]},
        }

    def rows(self, kinds: Sequence[str]) -> Iterator[Row]:
        """Every row asked for."""
        everywhere = dict.fromkeys(ORGANISATIONS)
        if "start" in kinds:
            yield self.measured("the model that ships", everywhere)
        if "alone" in kinds:
            own = {
                n: self.central([n], self.store(n), f"alone-{n}", "adapters") for n in ORGANISATIONS
            }
            yield self.measured("each alone, adapters", own)
        if "central" in kinds:
            place = self.central(ORGANISATIONS, self.folder / "all", "central", "adapters")
            yield self.measured("all data in one place, adapters", dict.fromkeys(everywhere, place))
        for name, kind, settings in FEDERATIONS:
            if name in kinds:
                yield self.together(name, kind, settings)

    def together(self, name: str, kind: str, settings: Mapping[str, Any]) -> Row:
        """A federation as a row."""
        found = self.federated(name.replace(" ", "-"), kind, **settings)
        last = found.rounds[-1]
        up = last.bytes_up / len(ORGANISATIONS)
        models = dict.fromkeys(ORGANISATIONS, found.model)
        return self.measured(name, models, up=up, epsilon=last.epsilon)


FEDERATIONS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("together, adapters", "adapters", {}),
    ("together, full weights", "full", {"travel": {"kind": "full"}}),
    ("together, adapters, int8", "adapters", {"travel": {"precision": "int8"}}),
    ("together, secure", "adapters", {"secure": {"sums": True}}),
    ("together, epsilon 8", "adapters", {"privacy": {"epsilon": 8.0}}),
    ("together, epsilon 3", "adapters", {"privacy": {"epsilon": 3.0}}),
    ("together, epsilon 1", "adapters", {"privacy": {"epsilon": 1.0}}),
)
WAYS = ("start", "alone", "central", *(name for name, _, _ in FEDERATIONS))


def written(path: Path, settings: Mapping[str, Any]) -> Path:
    """Settings as YAML."""
    path.write_text(yaml.safe_dump(dict(settings), allow_unicode=True), "utf-8")
    return path


def mean(values: Sequence[float]) -> float:
    """In percent, with a tenth."""
    return round(100 * float(np.mean(values)), 1)


def interval(values: Sequence[float], seed: int = 0) -> str:
    """The mean in percent, with where 95 % of resamples lie."""
    rng, found = np.random.default_rng(seed), np.asarray(values)
    means = rng.choice(found, (2000, len(found))).mean(1) * 100
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{100 * found.mean():.1f} ({low:.0f} to {high:.0f})"


def page(rows: Sequence[Row], rounds: int, seed: int) -> str:
    """The results as a page."""
    lines = [
        "# Federation",
        "",
        f"`python benchmarks/federation.py --rounds {rounds} --seed {seed}`, "
        f"{platform.machine()}, {torch.get_num_threads()} threads, one seed; the three "
        f"organisations of the example corpus, {rounds} passes over the train questions in every "
        f"row, {len(rows[0].f1)} dev questions with an answer, found by vectors and answered "
        "greedily. Intervals of 95 % over questions; rows that differ by less say nothing.",
        "",
        "| | F1 | recall@5 | bytes up, a party and round | ε |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        up = "" if row.up is None else f"{row.up:,.0f}"
        epsilon = "" if row.epsilon is None else f"{row.epsilon:.2f}"
        cells = [row.name, interval(row.f1), interval(row.recall), up, epsilon]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Run every row, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", nargs="*", choices=WAYS, default=list(WAYS))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for row in Bench(Path(folder), args.rounds, args.seed).rows(args.rows):
            rows.append(row)
            if args.out:
                args.out.write_text(page(rows, args.rounds, args.seed), encoding="utf-8")
    if not args.out:
        print(page(rows, args.rounds, args.seed))


if __name__ == "__main__":
    main()
