"""Stage 3: from a checkpoint to the model folder that ships.

python recipes/shipped_model/pack.py RUN src/consilience/weights/compact --set prior_temperature=0.1
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from consilience.encoding.folder import ModelConfig, write_folder


def settings(given: list[str]) -> dict[str, Any]:
    """`key=value` pairs, values as JSON."""
    return {key: json.loads(value) for key, _, value in (one.partition("=") for one in given)}


def main() -> None:
    """Write the model folder in bfloat16."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=JSON")
    args = parser.parse_args()
    weights = torch.load(args.run / "checkpoint.pt", weights_only=True)["model"]
    tensors = {name: value.to(torch.bfloat16).contiguous() for name, value in weights.items()}
    size = tensors["embeddings.word_embeddings.weight"].shape[0]
    config = ModelConfig(vocabulary_size=size, **settings(args.set))
    tokenizer = (args.run / "tokenizer.json").read_text(encoding="utf-8")
    write_folder(args.folder, config, tensors, tokenizer)
    total = sum(path.stat().st_size for path in args.folder.iterdir())
    print(f"{sum(v.numel() for v in tensors.values()) / 1e6:.1f}M parameters, {total / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
