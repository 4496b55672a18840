"""Plain text that a tiny model can learn from in a test."""

import random
from pathlib import Path

from tests.training.small import THINGS

SENTENCES = 6


def write_texts(folder: Path, *, documents: int = 8, seed: int = 0) -> Path:
    """A folder of short documents, each about a thing of its own, with numbers and repetitions."""
    folder.mkdir(parents=True)
    draw = random.Random(seed)
    for number in range(documents):
        lines = [_sentence(THINGS[number % len(THINGS)], draw) for _ in range(SENTENCES)]
        (folder / f"{number}.txt").write_text(" ".join(lines) + "\n", encoding="utf-8")
    return folder


def _sentence(thing: str, draw: random.Random) -> str:
    other = draw.choice([one for one in THINGS if one != thing])
    return f"The {thing} of the {other} is {draw.randrange(10, 99)}."
