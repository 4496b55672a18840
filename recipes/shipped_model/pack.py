"""Weights as a folder to give away: their matrices in eight bits, small vectors in bfloat16.

    python recipes/shipped_model/pack.py MODEL OUT --set prior_temperature=0.1

MODEL is any model folder, for instance one that `consilience train` wrote: its settings are kept
but for those that `--set` names, and its cards are copied. `--storage plain` leaves bfloat16.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from consilience.encoding.folder import Storage, open_folder, write_folder

CARDS = ("MODEL_CARD.md", "MODEL_CARD.zh.md")


def settings(given: list[str]) -> dict[str, Any]:
    """`key=value` pairs, values as JSON."""
    return {key: json.loads(value) for key, _, value in (one.partition("=") for one in given)}


def pack(model: Path, out: Path, given: dict[str, Any], storage: Storage = "int8") -> None:
    """Write the folder; small vectors, and all of `plain`, are in bfloat16."""
    folder = open_folder(model)
    tensors = {
        name: value.to(torch.bfloat16) if storage == "plain" or value.dim() < 2 else value
        for name, value in folder.tensors().items()
    }
    tokenizer = (model / "tokenizer.json").read_text(encoding="utf-8")
    write_folder(out, replace(folder.config, **given), tensors, tokenizer, storage=storage)
    for card in CARDS:
        if (model / card).is_file():
            (out / card).write_bytes((model / card).read_bytes())


def main() -> None:
    """Pack, and say how large the folder is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=JSON")
    parser.add_argument("--storage", choices=("plain", "int8"), default="int8")
    args = parser.parse_args()
    pack(args.model, args.out, settings(args.set), args.storage)
    tensors = open_folder(args.out).tensors()
    total = sum(path.stat().st_size for path in args.out.iterdir())
    print(f"{sum(v.numel() for v in tensors.values()) / 1e6:.1f}M parameters, {total / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
