"""A random autoregressive model over a handful of tokens, small enough to enumerate.

It implements `Generator` from the outside: any prefix and passage has its own random distribution,
drawn from a seed, so every sum over passages and over answers can be worked out exhaustively.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

import torch
from torch import Tensor

from consilience.generation import Pair, Stretch


@dataclass
class TableState:
    """What each beam of each row has written."""

    prefixes: list[list[tuple[int, ...]]] = field(default_factory=list)


class TableGenerator:
    """Token 0 starts, 1 ends; with `none`, token 2 says "not here"."""

    def __init__(self, vocabulary: int = 5, *, none: bool = False, sharpness: float = 1.5) -> None:
        self.vocabulary, self.sharpness = vocabulary, sharpness
        self.start, self.end = 0, 1
        self.none: int | None = 2 if none else None

    def distribution(self, row: str, prefix: tuple[int, ...]) -> Tensor:
        """log p of the next token, `[vocabulary]`."""
        seed = sum(ord(c) * 31**i for i, c in enumerate(row)) + sum(
            (t + 1) * 97 ** (i + 1) for i, t in enumerate(prefix)
        )
        noise = torch.randn(
            self.vocabulary, generator=torch.Generator().manual_seed(seed % (2**31))
        )
        noise[self.start] = -1e4
        if self.none is not None and prefix:
            noise[self.none] = -1e4
        return (self.sharpness * noise).log_softmax(-1)

    def read(self, pairs: Sequence[Pair]) -> list[str]:
        return [f"{pair.question}|{pair.passage}" for pair in pairs]

    def begin(self, memory: list[str]) -> TableState:
        return TableState([[()] for _ in memory])

    def step(self, memory: list[str], state: TableState, ids: Tensor) -> Tensor:
        for row, beams in enumerate(ids.tolist()):
            old = state.prefixes[row]
            written = [(*old[b], token) for b, token in enumerate(beams)]
            state.prefixes[row] = [p[1:] if p[0] == self.start else p for p in written]
        return torch.stack(
            [
                torch.stack([self.distribution(row, p) for p in state.prefixes[index]])
                for index, row in enumerate(memory)
            ]
        )

    def reorder(self, state: TableState, parents: Tensor) -> None:
        state.prefixes = [
            [old[parent] for parent in chosen]
            for old, chosen in zip(state.prefixes, parents.tolist(), strict=True)
        ]

    def score(self, memory: list[str], targets: Tensor) -> Tensor:
        return torch.stack(
            [
                torch.stack(
                    [self.distribution(row, tuple(ids[:t]))[ids[t]] for t in range(len(ids))]
                )
                for row, ids in zip(memory, targets.tolist(), strict=True)
            ]
        )

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))

    def locate(self, memory: list[str], row: int, ids: Sequence[int]) -> list[Stretch]:
        return []

    def answers(self, most: int) -> Iterator[tuple[int, ...]]:
        """Every answer of up to `most` tokens, with its end; `none` alone ends too."""
        plain = [t for t in range(self.vocabulary) if t not in (self.start, self.end, self.none)]
        for length in range(most + 1):
            for body in product(plain, repeat=length):
                yield (*body, self.end)
