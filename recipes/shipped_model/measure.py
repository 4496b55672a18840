"""Stage 4: what the packed model can do on questions it was not trained on.

Gold passage: each dev question with its own context. The support of unanswerable questions against
that of answerable ones gives the threshold below which the model abstains.

    python recipes/shipped_model/measure.py DATA FOLDER --most 300
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from mixture import Row, read_rows, title_of, untokenised

from consilience.evaluation import exact_match, f1
from consilience.generation import Generator, Pair
from consilience.model import Rag
from consilience.model.decoding import Decoded, DecodingOptions, decode

SETS = {"squad_v11": "en", "qed_nq": "en", "cmrc2018": "zh", "drcd": "zh"}


def answer_text(generator: Generator, memory: Any, index: int, one: Decoded, passage: str) -> str:
    """The answer as the passage spells it."""
    stretches = generator.locate(memory, index, one.ids)
    if stretches:
        return " ".join(passage[s.start : s.end] for s in stretches)
    return generator.decode(one.ids)


def passage_of(row: Row, name: str) -> str:
    """The context; Natural Questions come tokenised and are put back together."""
    return untokenised(row["context"]) if name == "qed_nq" else str(row["context"])


def gold(rag: Rag, name: str, rows: list[Row], options: DecodingOptions) -> dict[str, float]:
    """EM and F1 given the right passage, and the mean support."""
    generator, language = rag.model.generator, SETS.get(name, "en")
    totals = {"em": 0.0, "f1": 0.0, "support": 0.0}
    for start in range(0, len(rows), 8):
        part = rows[start : start + 8]
        pairs = [Pair(r["question"], title_of(r), passage_of(r, name)) for r in part]
        memory = generator.read(pairs)
        decoded = decode(generator, memory, torch.zeros(len(part), 1), options=options)
        found = [best for best, *_ in decoded]
        for index, (row, one) in enumerate(zip(part, found, strict=True)):
            text = answer_text(generator, memory, index, one, pairs[index].passage)
            references = row["answers"]
            if name == "qed_nq":
                references = [untokenised(answer) for answer in references]
            totals["em"] += exact_match(text, references, language=language)
            totals["f1"] += f1(text, references, language=language)
            totals["support"] += one.support
    return {key: round(value / len(rows), 4) for key, value in totals.items()} | {"n": len(rows)}


def main() -> None:
    """Print one JSON line per set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--most", type=int, default=300)
    parser.add_argument("--beams", type=int, default=1)
    args = parser.parse_args()
    rag = Rag.load(args.folder)
    options = DecodingOptions(beams=args.beams)
    for name in [*SETS, "squad_v2_unanswerable"]:
        rows = list(read_rows(args.data / name / "dev.jsonl.gz"))
        rows = rows[:: max(1, len(rows) // args.most)][: args.most]
        print(json.dumps({"set": name, **gold(rag, name, rows, options)}), flush=True)


if __name__ == "__main__":
    main()
