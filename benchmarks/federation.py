"""What training together is worth: each party alone, together in several ways, and all data in one.

The organisations of a corpus, the model that ships, the same number of passes over the questions in
every row. F1 and recall of the right passages are measured on each party's dev questions over its
own documents, and averaged over the questions; intervals are bootstrapped over seeds and questions.
The *share* of a row is how much of what central training gains it gains itself.

Corpora are the `example` of this project and, below `--data`, `fed_rag_en` and `fed_rag_zh`: the
model was trained on the general ones of their organisations and knows nothing of the others. Every
row that was measured is a line of `--results`; what stands there is not measured again, so that
rows can be added one at a time and an interrupted run goes on.

    python benchmarks/federation.py --corpus fed_rag_en --data DIR --seeds 0 1 2 --rows start full
    python benchmarks/federation.py --simulation 3 10 --deployment 3 10
    python benchmarks/federation.py --out docs/benchmarks/federation.md
"""

import argparse
import gzip
import json
import math
import platform
import random
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from bare_rounds import ENGINES, SIMULATED, BareRounds, bare_rounds, rounds_lines
from consilience import Rag, Store, evaluate
from consilience.documents import Document, Passage
from consilience.encoding import Encoder, Vectors
from consilience.errors import ConsilienceError
from consilience.evaluation import EvaluationOptions, Scoring
from consilience.evaluation import f1 as f1_of
from consilience.federation.assembling import federate, party_files, resident, simulate
from consilience.federation.config import FederationConfig
from consilience.federation.contracts import Party
from consilience.federation.local import LocalParties
from consilience.federation.messages import Message
from consilience.federation.rounds import Federated
from consilience.model import AskOptions
from consilience.questions import read_questions
from consilience.store import Where
from consilience.text import language_of
from consilience.training.config import TrainConfig
from consilience.training.run import train
from consilience.training.settings import parse_settings, read_settings
from teaching import blank_start

EXAMPLE = Path(__file__).parent.parent / "examples" / "three_organisations"
CORPORA = ("example", "fed_rag_en", "fed_rag_zh")


@dataclass(frozen=True, slots=True)
class Setup:
    """What all rows of a table have in common.

    Attributes:
        corpus: One of `CORPORA`.
        recipe: One of `RECIPES`.
        rounds: Passes over the train questions.
        documents: Of each organisation, at most.
        train: Questions of each organisation, at most.
        dev: Likewise.
        rate: Learning rate of adapters; of full weights a tenth.
        rank: Of the adapters.
        answers: Whether questions are answered, and F1 is measured; recall alone is quick.
        right: Whether a question is answered from the documents that hold its answer, and from no
            others: what a reader has learned shows where the retriever finds nothing.
        blank: Last layers of the question encoder that are drawn anew before anything learns: the
            model that ships has little to gain, and one that finds badly has much.
        exchanges: Rounds of a federation in one pass over its questions.
        batch: Questions of a step; 0 is the recipe's own.
    """

    corpus: str
    recipe: str
    rounds: int
    documents: int
    train: int
    dev: int
    rate: float
    rank: int
    answers: bool = True
    right: bool = False
    blank: int = 0
    exchanges: int = 1
    batch: int = 0

    def told(self) -> list[str]:
        """A heading, and what was the same for all rows."""
        each = f"{self.documents} documents, {self.train} train and {self.dev} dev questions"
        size = "all documents and questions" if self.corpus == "example" else f"{each} each"
        objectives = " + ".join(RECIPES[self.recipe]["objectives"])
        return [
            f"## {self.corpus}, {self.recipe}",
            "",
            f"Organisations with {size}, {self.rounds} passes{self._often()}; {objectives}, "
            f"learning rate {self.rate:g}, {self.size} questions a step, adapters of rank "
            f"{self.rank}{self._begun()}{self._how()}",
        ]

    @property
    def size(self) -> int:
        """Questions of a step."""
        return self.batch or int(RECIPES[self.recipe]["batch"])

    def _often(self) -> str:
        return f" of {self.exchanges} rounds" if self.exchanges > 1 else ""

    def _begun(self) -> str:
        if not self.blank:
            return ""
        return (
            "; all rows begin with the model that ships, but for a question encoder of its own "
            f"whose last layers ({self.blank}) were drawn anew, so that there is something to gain"
        )

    def _how(self) -> str:
        if not self.answers:
            return "; no question is answered."
        return "; answered from the right documents alone." if self.right else "."


RECIPES: Mapping[str, Mapping[str, Any]] = {
    "retriever": {"objectives": {"info_nce": 1.0}, "train": ["question_encoder"], "batch": 16},
    "reader": {"objectives": {"reader": 1.0}, "train": ["generator"], "batch": 8},
    "both": {
        "objectives": {"info_nce": 1.0, "reader": 1.0},
        "train": ["question_encoder", "generator"],
        "batch": 8,
    },
    "joint": {
        "objectives": {"emdr2": 1.0},
        "train": ["question_encoder", "generator"],
        "batch": 4,
    },
    "posterior": {"objectives": {"emdr2": 1.0}, "train": ["question_encoder"], "batch": 16},
}
"""What is trained, and by what: all but those that contrast may be private."""

COMMON: Mapping[str, Any] = {"k": 3, "schedule": "constant", "warmup": 0, "report_to": []}
HOSTILE = 0.3  # share of the parties, rounded up
CLIP = 1.0  # longest update; honest ones are about as long
MOST_GOLD = 2  # right documents of a question that are taken in


@dataclass(frozen=True, slots=True)
class Way:
    """A way of training together.

    Attributes:
        title: For the table.
        settings: Of the federation.
        full: Whether all weights learn, in the place of adapters.
        split: Parties that each organisation's questions are dealt to.
        attack: What hostile parties do: sign, scale or label; empty for none.
    """

    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    full: bool = False
    split: int = 1
    attack: str = ""


ATTACKS = {"sign": "sign turned", "scale": "a hundredfold", "label": "labels exchanged"}
DEFENCES: Mapping[str, Mapping[str, Any]] = {
    "average": {},
    "trimmed": {"kind": "trimmed", "hostile": HOSTILE},
    "median": {"kind": "median"},
    "krum": {"kind": "krum", "hostile": HOSTILE},
    "clip": {"longest": CLIP},
}


def hostile_ways() -> Iterator[tuple[str, Way]]:
    """Every attack against every mean; without a mean's name, against the average."""
    for attack, does in ATTACKS.items():
        for defence, mean in DEFENCES.items():
            name = f"hostile-{attack}" + ("" if defence == "average" else f"-{defence}")
            title = f"three parties of each, a third hostile ({does}), {defence}"
            yield name, Way(title, {"mean": dict(mean)}, split=3, attack=attack)


WAYS: Mapping[str, Way] = {
    "adapters": Way("together, adapters"),
    "fedit": Way("together, both factors averaged", {"travel": {"kind": "average"}}),
    "stack": Way("together, factors stacked", {"travel": {"kind": "stack"}}),
    "full": Way("together, full weights", {"travel": {"kind": "full"}}, full=True),
    "bfloat16": Way("together, bfloat16", {"travel": {"precision": "bfloat16"}}),
    "int8": Way("together, int8", {"travel": {"precision": "int8"}}),
    "secure": Way("together, secure", {"secure": {"sums": True}}),
    "private-8": Way("together, epsilon 8", {"privacy": {"epsilon": 8.0}}),
    "private-3": Way("together, epsilon 3", {"privacy": {"epsilon": 3.0}}),
    "private-1": Way("together, epsilon 1", {"privacy": {"epsilon": 1.0}}),
    "many": Way("three parties of each organisation, none hostile", split=3),
    **dict(hostile_ways()),
}
ROWS = ("start", "alone", "central", *WAYS)


@dataclass(frozen=True, slots=True)
class Row:
    """A way of training, measured once.

    Attributes:
        setup: What the rows of a table have in common.
        name: One of `ROWS`.
        seed: Of the training.
        f1: Of every dev question; None where the question has no short answer.
        recall: At 5, of every dev question.
        up: Bytes that a party sends in a round; None where nothing is sent.
        epsilon: Privacy spent; None without a budget.
        seconds: Of the processor, for training and measuring.
        reason: Why there is no model; empty where there is one.
    """

    setup: Setup
    name: str
    seed: int
    f1: Sequence[float | None] = ()
    recall: Sequence[float] = ()
    up: float | None = None
    epsilon: float | None = None
    seconds: float = 0.0
    reason: str = ""

    def means(self) -> dict[str, Any]:
        """What is shown while rows are measured."""
        f1 = [one for one in self.f1 if one is not None]
        return {
            "f1": float(np.mean(f1)) if f1 else None,
            "recall": float(np.mean(self.recall)) if self.recall else None,
            "up": self.up,
            "epsilon": self.epsilon,
            "seconds": round(self.seconds),
            "reason": self.reason,
        }

    @classmethod
    def parse(cls, found: Mapping[str, Any]) -> "Row":
        """What `asdict` made."""
        return cls(**{**found, "setup": Setup(**found["setup"])})


@dataclass(frozen=True, slots=True)
class Place:
    """An organisation: where its documents and questions are."""

    name: str
    folder: Path

    @property
    def store(self) -> Path:
        """Its knowledge base."""
        return self.folder / "knowledge"

    def questions(self, split: str) -> Path:
        """Its questions."""
        return self.folder / f"{split}.jsonl"


class Remembering:
    """An encoder that reads no passage twice: each lies in its owner's store and in that of all."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._known: dict[str, NDArray[np.float32]] = {}
        self.fingerprint, self.dimension = encoder.fingerprint, encoder.dimension

    def encode_questions(self, questions: Sequence[str]) -> Vectors:
        """As the encoder."""
        return self._encoder.encode_questions(questions)

    def encode_passages(self, passages: Sequence[str]) -> Vectors:
        """As the encoder, once."""
        new = [text for text in dict.fromkeys(passages) if text not in self._known]
        self._known.update(zip(new, self._encoder.encode_passages(new), strict=True))
        return np.stack([self._known[text] for text in passages])


def prepared(
    work: Path, setup: Setup, data: Path | None, model: str | None
) -> tuple[list[Place], Path]:
    """The organisations of a corpus, and a store with the documents of all; made once."""
    sizes = f"{setup.documents}-{setup.train}-{setup.dev}"
    name = setup.corpus if setup.corpus == "example" else f"{setup.corpus}-{sizes}"
    folder = work / (f"{name}-{setup.blank}" if setup.blank else name)
    source = EXAMPLE if setup.corpus == "example" else _below(data, setup.corpus)
    names = sorted(one.name for one in source.iterdir() if one.is_dir() and one.name[0] != "_")
    places = [Place(name, folder / name) for name in names]
    if not (folder / "ready").exists():
        found = Rag.load(model).encoder
        assert found is not None
        encoder = Remembering(found)
        with Store.open(folder / "all", encoder=encoder) as everything:
            for place in places:
                with Store.open(place.store, encoder=encoder) as store:
                    _fill(place, source / place.name, setup, [store, everything])
        (folder / "ready").touch()
    return places, folder / "all"


def _below(data: Path | None, corpus: str) -> Path:
    if data is None:
        raise SystemExit(f"--corpus {corpus} needs --data DIR")
    return data / corpus


def _fill(place: Place, source: Path, setup: Setup, stores: Sequence[Store]) -> None:
    if setup.corpus == "example":
        found = {split: _written(source, split) for split in ("train", "dev")}
        documents: list[Any] = [source / "documents"]
    else:
        texts = {row["_id"]: row for row in _lines(source / "docs.jsonl.gz")}
        sizes = {"train": setup.train, "dev": setup.dev}
        found = {s: _chosen(source / f"{s}.jsonl.gz", texts, n) for s, n in sizes.items()}
        documents = [_document(texts[name]) for name in _wanted(found, texts, setup.documents)]
    for store in stores:
        store.add(*documents)
    passages = _passages(stores[0])
    for split, questions in found.items():
        lines = [json.dumps(_named(one, passages), ensure_ascii=False) for one in questions]
        place.questions(split).write_text("\n".join([*lines, ""]), encoding="utf-8")


def _written(source: Path, split: str) -> list[dict[str, Any]]:
    """The example's questions as this file has them: with the documents that answer them.

    Its test questions are measured with its dev questions, of which there are few.
    """
    parts = ("dev", "test") if split == "dev" else (split,)
    paths = [source / "questions" / f"{part}.jsonl" for part in parts]
    rows = [json.loads(line) for path in paths for line in path.read_text("utf-8").splitlines()]
    return [row | {"right": [row["source"]]} for row in rows if row["answers"]]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def _chosen(path: Path, texts: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """Questions whose documents are there, the same every time.

    Where a document itself is the answer, its first sentence is what there is to learn, and F1 is
    not measured.
    """
    rows = [row for row in _lines(path) if not row.get("is_impossible")]
    random.Random(0).shuffle(rows)
    found = []
    for row in rows:
        right = [name for name in row["doc_ids"] if name in texts][:MOST_GOLD]
        if not right:
            continue
        answers = row["answers"] or [_first_sentence(texts[right[0]]["text"])]
        kept = {"id": row["id"], "question": row["question"], "answers": answers, "right": right}
        found.append(kept | {"measured": bool(row["answers"])})
    return found[:count]


def _first_sentence(text: str) -> str:
    ends = [at for at in map(text.find, "。.！？!?") if at > 0]
    return text[: min([*ends, 60])]


def _wanted(
    found: Mapping[str, Sequence[Mapping[str, Any]]], texts: Mapping[str, Any], most: int
) -> list[str]:
    """The documents that are asked for, then others until there are enough."""
    asked = [name for rows in found.values() for row in rows for name in row["right"]]
    others = sorted(texts)
    random.Random(0).shuffle(others)
    return list(dict.fromkeys([*asked, *others]))[: max(most, len(set(asked)))]


def _document(row: Mapping[str, str]) -> Document:
    return Document(row["text"], source=row["_id"], title=row["title"])


def _passages(store: Store) -> list[Passage]:
    with store.changes(0) as changes:
        numbers = [row.number for batch in changes.added for row in batch]
    return list(store.passages(numbers).values())


def _named(row: Mapping[str, Any], passages: Sequence[Passage]) -> dict[str, Any]:
    """A question that names the passages with its answer, or all of its documents."""
    own = [one for one in passages if one.source.endswith(tuple(row["right"]))]
    holding = [one.id for one in own if any(answer in one.text for answer in row["answers"])]
    kept = {name: row[name] for name in ("id", "question", "answers")}
    told = {"measured": row.get("measured", True)}
    return kept | told | {"positive_ids": holding or [one.id for one in own]}


class Bench:
    """The rows of one table.

    Args:
        work: Folder for stores and models.
        setup: What all rows have in common.
        data: Folder of the corpora.
    """

    def __init__(self, work: Path, setup: Setup, data: Path | None) -> None:
        self.setup = setup
        place = work / f"blank-{setup.blank}"
        self.begun = str(place) if setup.blank else None
        if setup.blank and not place.exists():
            blank_start(place, setup.blank, seed=0)
        self.places, self.everything = prepared(work, setup, data, self.begun)
        self.work = self.runs = work

    def row(self, name: str, seed: int) -> Row:
        """One row; what it trained is gone afterwards, being gigabytes."""
        with tempfile.TemporaryDirectory(prefix="runs-", dir=self.work) as place:
            self.runs = Path(place)
            return self._row(name, seed)

    def _row(self, name: str, seed: int) -> Row:
        """A way that ends without a model is a row too."""
        began = time.process_time()
        up, epsilon, models = None, None, dict[str, str | None]()
        try:
            if name in WAYS:
                found = self.together(WAYS[name], seed)
                line = found.rounds[-1]
                up, epsilon = line.bytes_up / len(line.parties), line.epsilon
                models = {place.name: found.model for place in self.places}
            else:
                models = self.apart(name, seed)
        except ConsilienceError as error:
            seconds = time.process_time() - began
            return Row(self.setup, name, seed, seconds=seconds, reason=error.message[:200])
        found_f1, found_recall = self.measured(models)
        f1, recall = _rounded(found_f1), _rounded(found_recall)
        seconds = time.process_time() - began
        return Row(self.setup, name, seed, f1, recall, up, epsilon, seconds)

    def apart(self, name: str, seed: int) -> dict[str, str | None]:
        """Each party's model where none of them federates."""
        if name == "alone":
            return {p.name: self.central([p], p.store, seed) for p in self.places}
        place = self.central(self.places, self.everything, seed) if name == "central" else None
        return {one.name: place or self.begun for one in self.places}

    def measured(self, models: Mapping[str, str | None]) -> tuple[list[float | None], list[float]]:
        """A model on each party's dev questions over its own documents."""
        f1: list[float | None] = []
        recall: list[float] = []
        if self.setup.right:
            f1 = [one for p in self.places for one in answered_rightly(p, models[p.name])]
        if self.setup.right or not self.setup.answers:
            return f1, [one for place in self.places for one in found_in(place, models[place.name])]
        options = EvaluationOptions(
            ask=AskOptions(k=COMMON["k"], mode="dense", beams=1, abstain=False),
            scoring=Scoring(overlap=False),
        )
        for place in self.places:
            rag = Rag.load(models[place.name])
            questions = read_questions(place.questions("dev"))
            lines = place.questions("dev").read_text(encoding="utf-8").splitlines()
            with Store.open(place.store, encoder=rag.encoder) as store:
                records = evaluate(rag, store, questions, options).records
            for line, record in zip(lines, records, strict=True):
                f1.append(record.values["f1"] if json.loads(line)["measured"] else None)
                recall.append(record.values["recall@5"])
        return f1, recall

    def central(self, places: Sequence[Place], store: Path, seed: int) -> str:
        """A model trained in one place; where it is."""
        label = "-".join(["central", *(one.name for one in places), str(seed)])
        config = {
            **self.recipe(full=False),
            "output": str(self.runs / label),
            "store": str(store),
            "data": {"train": [str(one.questions("train")) for one in places]},
            "steps": self.setup.rounds * self.steps(places),
            "seed": seed,
        }
        found = train(parse_settings(TrainConfig, config, source="benchmark"))
        return str(found.output / "model")

    def recipe(self, *, full: bool) -> dict[str, Any]:
        """What all rows train by."""
        setup = self.setup
        lora = {"kind": "lora", "rank": setup.rank, "alpha": 2 * setup.rank}
        rest = {"learning_rate": setup.rate / 10} if full else {"adapter": lora}
        told = {"learning_rate": setup.rate, "model": self.begun}
        return {**told, **COMMON, **RECIPES[setup.recipe], **rest, "batch": setup.size}

    def steps(self, places: Sequence[Place]) -> int:
        """Of one pass."""
        count = sum(len(read_questions(one.questions("train"))) for one in places)
        return math.ceil(count / self.setup.size)

    def steps_of_a_round(self, way: Way) -> int | None:
        """Of every party; None for a whole pass."""
        if self.setup.exchanges == 1:
            return None
        each = self.steps(self.places) / len(self.places) / way.split
        return math.ceil(each / self.setup.exchanges)

    def together(self, way: Way, seed: int) -> Federated:
        """A federation of the organisations."""
        folder = Path(tempfile.mkdtemp(dir=self.runs))
        parties = self.parties(folder, way, seed)
        settings = {
            "output": str(folder / "run"),
            "recipe": str(written(folder / "recipe.yaml", self.recipe(full=way.full))),
            "parties": [str(written(folder / f"{p['name']}.yaml", p)) for p in parties],
            "rounds": self.setup.rounds * self.setup.exchanges,
            "steps": self.steps_of_a_round(way),
            "seed": seed,
            **way.settings,
        }
        path = written(folder / "federation.yaml", settings)
        config = read_settings(FederationConfig, path, verb="federate")
        if way.attack not in FACTORS:
            return simulate(config)
        return attacked(config, hostile(parties, seed), FACTORS[way.attack])

    def parties(self, folder: Path, way: Way, seed: int) -> list[dict[str, Any]]:
        """The parties' files: one for each organisation, or several that share its documents."""
        found = []
        for place in self.places:
            lines = place.questions("train").read_text(encoding="utf-8").splitlines()
            for number in range(way.split):
                name = place.name.replace("_", "-") + (f"-{number}" if way.split > 1 else "")
                path = folder / f"{name}.jsonl"
                path.write_text("\n".join([*lines[number :: way.split], ""]), encoding="utf-8")
                found.append(
                    {
                        "name": name,
                        "state": str(folder / name),
                        "model": self.begun,
                        "store": str(place.store),
                        "data": {"train": [str(path)]},
                    }
                )
        if way.attack == "label":
            for name in hostile(found, seed):
                _exchange(folder / f"{name}.jsonl")
        return found


def _rounded(values: Sequence[float | None]) -> list[Any]:
    """Short enough for a file that is kept."""
    return [None if one is None else round(one, 3) for one in values]


def found_in(place: Place, model: str | None) -> Iterator[float]:
    """Recall at 5 of each dev question of a party."""
    rag = Rag.load(model)
    with Store.open(place.store, encoder=rag.encoder) as store:
        retriever = rag.retriever(store, "dense")
        for question in read_questions(place.questions("dev")):
            hits = {hit.passage.id for hit in retriever.search(question.question, k=5)}
            yield len(hits & set(question.positive_ids)) / len(question.positive_ids)


def answered_rightly(place: Place, model: str | None) -> Iterator[float | None]:
    """F1 of each dev question of a party, answered from its right documents alone."""
    rag = Rag.load(model)
    lines = map(json.loads, place.questions("dev").read_text(encoding="utf-8").splitlines())
    with Store.open(place.store, encoder=rag.encoder) as store:
        for row in lines:
            sources = {store.passage(name).source for name in row["positive_ids"]}
            where = Where.of([("source", source) for source in sources])
            options = AskOptions(k=COMMON["k"], mode="dense", beams=1, abstain=False, where=where)
            text = rag.ask(row["question"], store, options).text
            language = language_of(row["question"])
            yield f1_of(text, row["answers"], language=language) if row["measured"] else None


FACTORS = {"sign": -1.0, "scale": 100.0}
"""What hostile parties multiply their updates by."""


def hostile(parties: Sequence[Mapping[str, Any]], seed: int) -> list[str]:
    """Names of the hostile ones."""
    names = sorted(one["name"] for one in parties)
    return random.Random(seed).sample(names, math.ceil(HOSTILE * len(names)))


def _exchange(path: Path) -> None:
    """Give every question the answers and passages of the next."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    told = ("answers", "positive_ids")
    turned = [
        row | {name: other[name] for name in told}
        for row, other in zip(rows, [*rows[1:], *rows[:1]], strict=True)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in turned), encoding="utf-8")


@dataclass
class Hostile:
    """A party that multiplies what it sends."""

    party: Party
    factor: float

    @property
    def name(self) -> str:
        """Of the party that it pretends to be."""
        return self.party.name

    def answer(self, request: bytes) -> bytes:
        """As the party would, but for updates."""
        reply = self.party.answer(request)
        found = Message.unpack(reply)
        if found.kind != "update":
            return reply
        # Places of what rounding lost are whole numbers, and stay what they are.
        tensors = {
            n: v * self.factor if v.is_floating_point() else v for n, v in found.tensors.items()
        }
        return replace(found, tensors=tensors).pack()


def attacked(config: FederationConfig, names: Sequence[str], factor: float) -> Federated:
    """A federation some of whose parties are hostile."""
    files = party_files(config)
    with ExitStack() as stack:
        honest = [resident(one) for one in files]
        for party in honest:
            stack.callback(party.close)
        way = LocalParties([Hostile(p, factor) if p.name in names else p for p in honest])
        stack.callback(way.close)
        return federate(replace(config, expected=len(files)), way)


def written(path: Path, settings: Mapping[str, Any]) -> Path:
    """Settings as YAML."""
    path.write_text(yaml.safe_dump(dict(settings), allow_unicode=True), "utf-8")
    return path


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure with where 95 % of resamples lie."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} ({100 * self.low:.0f} to {100 * self.high:.0f})"


class Table:
    """The rows of a setup over seeds.

    Seeds and questions are drawn anew with repetition, the same ones for every row, so that what a
    share compares was asked alike.

    Args:
        rows: Of one setup.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = {(row.name, row.seed): row for row in rows}
        self.names = [name for name in ROWS if any(row.name == name for row in rows)]

    def seeds(self, name: str) -> list[int]:
        """Those that a row was measured with, and has a model of."""
        return sorted(
            seed for (row, seed), found in self.rows.items() if row == name and found.recall
        )

    def values(self, name: str, what: str, seeds: Sequence[int]) -> "Values":
        """Measures of a row, `[seeds, questions]`; the start is the same for every seed."""
        own = self.seeds(name)
        taken = [own[0] for _ in seeds] if name == "start" else seeds
        rows = [getattr(self.rows[name, seed], what) for seed in taken]
        return np.array([[v for v in row if v is not None] for row in rows], dtype=float)

    def spread(self, name: str, what: str) -> Spread | None:
        """The mean of a row; None where nothing was measured."""
        seeds = self.seeds(name)
        if not seeds or not self.values(name, what, seeds).size:
            return None
        found = self.values(name, what, seeds)
        return _spread(found.mean(), [found[draw].mean() for draw in _draws(found.shape)])

    def share(self, name: str, what: str) -> Spread | None:
        """How much of central's gain a row gains; None where central has no sure gain."""
        seeds = sorted(set(self.seeds(name)) & set(self.seeds("central")))
        if name in ("start", "central") or not seeds or not self.seeds("start"):
            return None
        own, most, least = (self.values(n, what, seeds) for n in (name, "central", "start"))
        if not own.size:
            return None
        gains = [((own - least)[d].mean(), (most - least)[d].mean()) for d in _draws(own.shape)]
        if np.percentile([gain for _, gain in gains], 2.5) <= 0:
            return None
        whole = (own - least).mean() / (most - least).mean()
        return _spread(whole, [mine / all_ for mine, all_ in gains if all_])

    def lines(self) -> Iterator[str]:
        """The table."""
        yield "| | seeds | F1 | recall@5 | share, F1 | share, recall | bytes up | ε | s |"
        yield "|---|---|---|---|---|---|---|---|---|"
        for name in self.names:
            yield f"| {' | '.join(self._cells(name))} |"

    def _cells(self, name: str) -> Iterator[str]:
        found = [row for (row_name, _), row in self.rows.items() if row_name == name]
        yield TITLES[name]
        yield str(len(self.seeds(name)))
        if stopped := [row.reason for row in found if row.reason]:
            yield f"stopped: {stopped[0]}"
            yield ""
        else:
            yield from (_told(self.spread(name, what)) for what in MEASURES)
        yield from (_told(self.share(name, what)) for what in MEASURES)
        yield "" if found[0].up is None else f"{found[0].up:,.0f}"
        yield "" if found[0].epsilon is None else f"{found[0].epsilon:.2f}"
        yield f"{np.mean([row.seconds for row in found]):.0f}"


Values = np.ndarray[Any, np.dtype[np.float64]]
MEASURES = ("f1", "recall")
SAID = "## What these rows say"
TITLES: Mapping[str, str] = {
    "start": "the start",
    "alone": "each alone, adapters",
    "central": "all data in one place, adapters",
    **{name: way.title for name, way in WAYS.items()},
}
RESAMPLES = 2000


def _draws(shape: tuple[int, ...]) -> Iterator[Any]:
    rng = np.random.default_rng(0)
    for _ in range(RESAMPLES):
        yield np.ix_(*(rng.integers(count, size=count) for count in shape))


def _spread(value: float, drawn: Sequence[float]) -> Spread:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Spread(float(value), float(low), float(high))


def _told(found: Spread | None) -> str:
    return "" if found is None else str(found)


def page(results: Path, before: str = "") -> str:
    """Everything that was measured, as a page; what was written of it by hand stays at its end."""
    rows, runs = read_results(results)
    lines = [
        "# Federation",
        "",
        f"`python benchmarks/federation.py`, {platform.machine()}; rows are measured one at a time "
        "and kept beside this page. Every row of a table has the same passes over the same "
        "questions; dev questions are asked over their own party's documents, found by vectors "
        f"and answered greedily from {COMMON['k']} passages. Intervals of 95 % over seeds and "
        "questions. A share is of what training on all data in one place gains, where that gain "
        "is above zero; s are seconds of the processor for training and measuring.",
        "",
    ]
    for setup in dict.fromkeys(row.setup for row in rows):
        lines += [*setup.told(), ""]
        lines += [*Table([row for row in rows if row.setup == setup]).lines(), ""]
    if runs:
        lines += rounds_lines(runs)
    _, heading, said = before.partition(f"{SAID}\n")
    return "\n".join(lines).rstrip() + "\n" + (f"\n{heading}{said}" if heading else "")


def read_results(path: Path) -> tuple[list[Row], list[BareRounds]]:
    """What was measured, the newest of each; lines that were cut off are left out."""
    rows: dict[Any, Row] = {}
    runs: dict[Any, BareRounds] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            found = json.loads(line)
        except ValueError:  # the run was stopped while it wrote
            continue
        if "setup" in found:
            row = Row.parse(found)
            rows[row.setup, row.name, row.seed] = row
        else:
            run = BareRounds(**found)
            runs[run.engine, run.parties, run.secure, run.weights] = run
    return list(rows.values()), list(runs.values())


def keep(path: Path, found: Row | BareRounds) -> None:
    """Add what was measured."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(found)) + "\n")


def measure(args: argparse.Namespace) -> None:
    """Every row that is asked for and not there yet."""
    setup = Setup(
        args.corpus,
        args.recipe,
        args.rounds,
        args.documents,
        args.train,
        args.dev,
        args.rate,
        args.rank,
        not args.recall_only,
        args.right,
        args.blank,
        args.exchanges,
        args.batch,
    )
    known = {(row.setup, row.name, row.seed) for row in read_results(args.results)[0]}
    wanted = [(n, s) for s in args.seeds for n in args.rows if n != "start" or s == args.seeds[0]]
    todo = [(name, seed) for name, seed in wanted if (setup, name, seed) not in known]
    if not todo:
        return
    with tempfile.TemporaryDirectory() as place:
        bench = Bench(args.work or Path(place), setup, args.data)
        for name, seed in todo:
            row = bench.row(name, seed)
            keep(args.results, row)
            print(json.dumps({"row": name, "seed": seed, **row.means()}), flush=True)


def main() -> None:
    """Measure what is asked for, and write the page."""
    args = arguments()
    measure(args)
    for engine in ENGINES:
        for count in args.simulation if engine in SIMULATED else args.deployment:
            for secure in (False, True):
                size = {"secure": secure, "weights": args.weights}
                found = bare_rounds(engine, count, args.bare_rounds, **size)
                keep(args.results, found)
                print(json.dumps(asdict(found)), flush=True)
    before = args.out.read_text(encoding="utf-8") if args.out and args.out.exists() else ""
    text = page(args.results, before)
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    else:
        print(text)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", choices=CORPORA, default="example")
    parser.add_argument("--data", type=Path, help="folder that holds fed_rag_en and fed_rag_zh")
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="both")
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=[])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--rounds", type=int, default=2, help="passes over the questions")
    parser.add_argument("--documents", type=int, default=200, help="of each organisation")
    parser.add_argument("--train", type=int, default=96, help="questions of each organisation")
    parser.add_argument("--dev", type=int, default=40, help="questions of each organisation")
    parser.add_argument("--rate", type=float, default=1e-3, help="of adapters; full takes a tenth")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--batch", type=int, default=0, help="0 is the recipe's own")
    parser.add_argument("--recall-only", action="store_true", help="ask for no answers; quick")
    parser.add_argument(
        "--right", action="store_true", help="answer from the documents that hold the answer"
    )
    parser.add_argument(
        "--blank", type=int, default=0, help="last layers of the question encoder drawn anew"
    )
    parser.add_argument("--exchanges", type=int, default=1, help="rounds in a pass")
    parser.add_argument("--deployment", nargs="*", type=int, default=[], metavar="PARTIES")
    parser.add_argument("--simulation", nargs="*", type=int, default=[], metavar="PARTIES")
    parser.add_argument("--bare-rounds", type=int, default=5, help="of the two above")
    parser.add_argument("--weights", type=int, default=110_592, help="that the two above send")
    parser.add_argument("--results", type=Path, default=Path("federation.jsonl"))
    parser.add_argument("--work", type=Path, help="folder that keeps stores between calls")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    private = [name for name in args.rows if name.startswith("private")]
    if private and "info_nce" in RECIPES[args.recipe]["objectives"]:
        fit = [name for name, one in RECIPES.items() if "info_nce" not in one["objectives"]]
        parser.error(f"{private[0]} needs a recipe that contrasts nothing: {', '.join(fit)}")
    if args.work:
        args.work.mkdir(parents=True, exist_ok=True)
    return args


if __name__ == "__main__":
    main()
