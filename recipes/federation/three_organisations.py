"""The three organisations of the example corpus train one model, and none shows a document.

Each has a store and questions of its own; what travels are changes of adapters. Everything is
written below OUTPUT, the files of the federation and its parties too, so that the same run can be
started by hand:

    python recipes/federation/three_organisations.py runs/three
    consilience federate status runs/three/run

    consilience federate simulate runs/three/federation.yaml --rounds 6

`--secure` hides every update in a sum, `--epsilon 8` spends so much privacy and no more.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from consilience import Rag, Store
from consilience.federation.assembling import simulate
from consilience.federation.config import FederationConfig
from consilience.federation.journal import Line
from consilience.federation.rounds import Federated, Watch
from consilience.training.settings import read_settings

CORPUS = Path(__file__).parent.parent.parent / "examples" / "three_organisations"
ORGANISATIONS = ("hospital", "bank", "university")

RECIPE: dict[str, Any] = {
    "objectives": {"sequence": 1.0},
    "train": ["question_encoder", "generator", "temperature"],
    "k": 3,
    "batch": 4,
    "learning_rate": 1e-4,
    "adapter": {"kind": "lora", "rank": 8, "alpha": 16},
    "evaluate_limit": 30,
}


def prepared(output: Path, **settings: Any) -> Path:
    """Stores and files of the federation; what is there already stays.

    Args:
        output: Where everything goes.
        **settings: Of the federation, in the place of those below.

    Returns:
        The federation's file.
    """
    output.mkdir(parents=True, exist_ok=True)
    rag = Rag.load()
    for name in ORGANISATIONS:
        with Store.open(output / name / "knowledge", encoder=rag.encoder) as store:
            store.add(CORPUS / name / "documents")
    written(output / "recipe.yaml", RECIPE)
    parties = [written(output / f"{name}.yaml", party(output, name)) for name in ORGANISATIONS]
    federation = {
        "output": str(output / "run"),
        "recipe": str(output / "recipe.yaml"),
        "parties": [str(path) for path in parties],
        "expected": len(parties),
    }
    return written(output / "federation.yaml", federation | settings)


def party(output: Path, name: str) -> dict[str, Any]:
    """A party's own file."""
    questions = CORPUS / name / "questions"
    return {
        "name": name,
        "state": str(output / name / "state"),
        "store": str(output / name / "knowledge"),
        "data": {"train": [str(questions / "train.jsonl")], "dev": [str(questions / "dev.jsonl")]},
    }


def written(path: Path, settings: dict[str, Any]) -> Path:
    """Settings as YAML."""
    path.write_text(yaml.safe_dump(settings, allow_unicode=True, sort_keys=False), "utf-8")
    return path


def run(federation: Path) -> Federated:
    """Train, and tell of each round."""
    config = read_settings(FederationConfig, federation, verb="federate")

    def told(line: Line) -> None:
        found = {name: round(value, 4) for name, value in line.metrics.items()}
        print(json.dumps({"round": line.round, **found, "lost": dict(line.lost)}), flush=True)

    return simulate(config, watch=Watch(say=print, line=told))


def options(args: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """Settings from the command line."""
    yield "rounds", args.rounds
    if args.secure:
        yield "secure", {"sums": True}
    if args.epsilon is not None:
        yield "privacy", {"epsilon": args.epsilon}


def main() -> None:
    """Prepare and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--secure", action="store_true")
    parser.add_argument("--epsilon", type=float)
    args = parser.parse_args()
    found = run(prepared(args.output, **dict(options(args))))
    print(f"consilience evaluate DATA --model {found.model}")


if __name__ == "__main__":
    main()
