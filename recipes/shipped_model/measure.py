"""What a model folder can do on questions it was not trained on: the figures of its card.

Reading: each dev question with its own context, EM and F1, the same of answers that are held to
quotations, and the mean support (that of unanswerable questions against that of answerable ones
gives the threshold below which the model abstains). Finding: recall@5 of the context among a few
thousand paragraphs, by vectors alone.

    python recipes/shipped_model/measure.py DATA FOLDER --most 400
    python recipes/shipped_model/measure.py DATA FOLDER --against BEFORE   # paired differences
    python recipes/shipped_model/measure.py DATA FOLDER --cards            # the cards' tables anew
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mixture import Row, read_rows, title_of, untokenised

from consilience.encoding import Encoder
from consilience.evaluation import Resampling, exact_match, f1
from consilience.evaluation.resampling import Interval, intervals
from consilience.evaluation.statistic import mean
from consilience.generation import Generator, Pair
from consilience.model import AskOptions, Rag
from consilience.model.decoding import Decoded, DecodingOptions, decode
from consilience.store.embedding import embedding_text

SETS = {"squad_v11": "en", "qed_nq": "en", "cmrc2018": "zh", "drcd": "zh"}
NAMES = {
    "squad_v11": "SQuAD 1.1",
    "qed_nq": "QED (Natural Questions)",
    "cmrc2018": "CMRC 2018",
    "drcd": "DRCD",
}
READ = (*SETS, "squad_v2_unanswerable")
FOUND = ("squad_v11", "cmrc2018", "drcd")
WITHIN = 5
MARKS = "<!-- figures -->", "<!-- end of figures -->"

Scores = dict[str, list[float]]
"""Of each measure, one value for each question."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The scores of one set, maybe beside those of another model on the same questions.

    Attributes:
        name: The set.
        scores: Of the model.
        before: Of the model that it is compared with.
    """

    name: str
    scores: Scores
    before: Scores | None = None

    @property
    def questions(self) -> int:
        """How many were asked."""
        return len(next(iter(self.scores.values())))

    def told(self) -> dict[str, Any]:
        """Means, and differences with their intervals, as one line of JSON."""
        line: dict[str, Any] = {"set": self.name, "n": self.questions}
        for measure, values in self.scores.items():
            line[measure] = round(float(np.mean(values)), 4)
            if self.before is not None:
                line[f"{measure} difference"] = difference(self.before[measure], values)
        return line


def difference(before: Sequence[float], after: Sequence[float]) -> dict[str, float]:
    """The mean difference of paired values, with its 95 % interval by the bootstrap."""
    gaps = np.subtract(after, before)
    found = interval(gaps)
    low, high = round(found.low, 4), round(found.high, 4)
    return {"mean": round(float(gaps.mean()), 4), "low": low, "high": high}


def interval(values: Iterable[float]) -> Interval:
    """Between which values their mean lies in 95 % of resamples."""
    kept = [float(value) for value in values]
    return intervals({"": mean(kept)}, len(kept), Resampling())[""]


def answer_text(generator: Generator, memory: Any, index: int, one: Decoded, passage: str) -> str:
    """The answer as the passage spells it."""
    stretches = generator.locate(memory, index, one.ids)
    if stretches:
        return " ".join(passage[s.start : s.end] for s in stretches)
    return generator.decode(one.ids)


def passage_of(row: Row, name: str) -> str:
    """The context; Natural Questions come tokenised and are put back together."""
    return untokenised(row["context"]) if name == "qed_nq" else str(row["context"])


def some(data: Path, name: str, most: int) -> list[Row]:
    """At most as many dev rows of a set, spread over all of it."""
    rows = list(read_rows(data / name / "dev.jsonl.gz"))
    return rows[:: max(1, len(rows) // most)][:most]


def references_of(row: Row, name: str) -> list[str]:
    """The answers that count; Natural Questions come tokenised and are put back together."""
    answers = [str(answer) for answer in row["answers"]]
    return [untokenised(answer) for answer in answers] if name == "qed_nq" else answers


def gold(rag: Rag, name: str, rows: list[Row], options: DecodingOptions) -> Scores:
    """EM, F1 and support of each question over its right passage, and EM and F1 of quotations."""
    generator, language = rag.model.generator, SETS.get(name, "en")
    ways = {"": options, " quoted": replace(options, quote=True)}
    scores: Scores = {"em": [], "f1": [], "support": [], "em quoted": [], "f1 quoted": []}
    for start in range(0, len(rows), 8):
        part = rows[start : start + 8]
        pairs = [Pair(r["question"], title_of(r), passage_of(r, name)) for r in part]
        memory = generator.read(pairs)
        for way, how in ways.items():
            decoded = decode(generator, memory, torch.zeros(len(part), 1), options=how)
            for index, (row, (one, *_)) in enumerate(zip(part, decoded, strict=True)):
                text = answer_text(generator, memory, index, one, pairs[index].passage)
                right = references_of(row, name)
                scores[f"em{way}"].append(float(exact_match(text, right, language=language)))
                scores[f"f1{way}"].append(float(f1(text, right, language=language)))
                if not way:
                    scores["support"].append(float(one.support))
    return scores


def paragraphs(data: Path, most: int) -> list[str]:
    """Distinct paragraphs as the retriever reads them: all of the dev sets, then train sets."""
    found: dict[str, None] = {}
    for part in ("dev", "train"):
        for name in FOUND:
            for row in read_rows(data / name / f"{part}.jsonl.gz"):
                if part == "train" and len(found) >= most:
                    return list(found)
                found[as_read(row)] = None
    return list(found)


def as_read(row: Row) -> str:
    """A row's paragraph with its title."""
    return embedding_text(title_of(row), row["context"])


def recall(encoder: Encoder, texts: list[str], asked: dict[str, list[Row]]) -> dict[str, Scores]:
    """Of each set, 1 for a question whose paragraph is among the five nearest, else 0."""
    vectors = encoder.encode_passages(texts)
    place = {text: number for number, text in enumerate(texts)}
    found = {}
    for name, rows in asked.items():
        nearness = encoder.encode_questions([row["question"] for row in rows]) @ vectors.T
        right = np.array([place[as_read(row)] for row in rows])
        above = (nearness > np.take_along_axis(nearness, right[:, None], 1)).sum(1)
        found[name] = {f"recall@{WITHIN}": [float(number < WITHIN) for number in above]}
    return found


def read_all(rags: list[Rag], args: argparse.Namespace) -> list[Measured]:
    """Reading on every wanted set; a line is printed as soon as it is known."""
    options = DecodingOptions(beams=args.beams)
    found = []
    for name in args.sets:
        rows = some(args.data, name, args.most)
        after, *before = [gold(rag, name, rows, options) for rag in rags]
        found.append(Measured(name, after, before[0] if before else None))
        print(json.dumps(found[-1].told()), flush=True)
    return found


def find_all(rags: list[Rag], args: argparse.Namespace) -> list[Measured]:
    """Finding among the paragraphs."""
    texts = paragraphs(args.data, args.paragraphs)
    asked = {name: some(args.data, name, args.most) for name in FOUND if name in args.sets}
    after, *before = [recall(one, texts, asked) for one in (rag.encoder for rag in rags) if one]
    found = [Measured(name, after[name], before[0][name] if before else None) for name in asked]
    for one in found:
        print(json.dumps(one.told() | {"paragraphs": len(texts)}), flush=True)
    return found


def table(read: list[Measured], found: list[Measured], heads: Sequence[str]) -> str:
    """The figures of a card, in percent; EM with half its 95 % interval."""
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    places = {one.name: one for one in found}
    for one in read:
        if one.name not in SETS:
            continue
        share = places[one.name].scores[f"recall@{WITHIN}"] if one.name in places else []
        cells = [
            NAMES[one.name],
            str(one.questions),
            *_read(one.scores, ""),
            *_read(one.scores, " quoted"),
            f"{100 * np.mean(share):.1f}" if share else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _read(scores: Scores, way: str) -> tuple[str, str]:
    """EM with half its interval, and F1."""
    exact = scores[f"em{way}"]
    within = interval(exact)
    half = 50 * (within.high - within.low)
    return f"{100 * np.mean(exact):.1f} ± {half:.1f}", f"{100 * np.mean(scores[f'f1{way}']):.1f}"


HEADS = {
    "MODEL_CARD.md": (
        "dev set", "questions", "EM", "F1", "EM, quoted", "F1, quoted", f"recall@{WITHIN}",
    ),
    "MODEL_CARD.zh.md": (
        "开发集", "问题数", "EM", "F1", "EM，摘录", "F1，摘录", f"recall@{WITHIN}",
    ),
}  # fmt: skip


def write_cards(folder: Path, read: list[Measured], found: list[Measured]) -> None:
    """Put the tables where the cards have a place for them."""
    for name, heads in HEADS.items():
        card = (folder / name).read_text(encoding="utf-8")
        head, tail = MARKS
        if card.count(head) != 1 or card.count(tail) != 1:
            raise SystemExit(f"{folder / name} needs the lines {head} and {tail}, once each")
        whole = f"{head}\n{table(read, found, heads)}\n{tail}"
        before, after = card.split(head)[0], card.split(tail)[1]
        (folder / name).write_text(before + whole + after, encoding="utf-8")


def main(words: Sequence[str] | None = None) -> None:
    """Print one JSON line for each set and kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--against", type=Path, help="a folder to compare with, pair by pair")
    parser.add_argument("--most", type=int, default=400, help="questions of each set")
    parser.add_argument("--beams", type=int, default=AskOptions().beams)
    parser.add_argument("--paragraphs", type=int, default=3000, help="0 measures no retrieval")
    parser.add_argument("--sets", nargs="*", default=READ, choices=READ)
    parser.add_argument("--cards", action="store_true", help="write the cards' tables anew")
    args = parser.parse_args(words)
    rags = [Rag.load(path) for path in (args.folder, args.against) if path is not None]
    read = read_all(rags, args)
    found = find_all(rags, args) if args.paragraphs else []
    if args.cards:
        write_cards(args.folder, read, found)


if __name__ == "__main__":
    main()
