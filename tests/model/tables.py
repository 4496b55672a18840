"""A random autoregressive model over a handful of tokens, small enough to enumerate.

It implements `Generator` from the outside: any prefix and passage has its own random distribution,
drawn from a seed, so every sum over passages and over answers can be worked out exhaustively.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

import torch
from torch import Tensor

from consilience.generation import NextToken, Pair, Stretch


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

    @property
    def vocabulary_size(self) -> int:
        return self.vocabulary

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def together(self, memory: list[str], k: int) -> list[str]:
        return ["+".join(memory[i : i + k]) for i in range(0, len(memory), k)]

    def begin(self, memory: list[str]) -> tuple[TableState, NextToken]:
        state = TableState([[()] for _ in memory])
        return state, self._next(memory, state)

    def step(self, memory: list[str], state: TableState, ids: Tensor, parents: Tensor) -> NextToken:
        state.prefixes = [
            [(*old[parent], token) for parent, token in zip(chosen, written, strict=True)]
            for old, chosen, written in zip(
                state.prefixes, parents.tolist(), ids.tolist(), strict=True
            )
        ]
        return self._next(memory, state)

    def _next(self, memory: list[str], state: TableState) -> NextToken:
        rows = [
            torch.stack([self.distribution(row, prefix) for prefix in prefixes])
            for row, prefixes in zip(memory, state.prefixes, strict=True)
        ]
        probs = torch.stack(rows).exp()
        return NextToken(2.0 * probs, torch.full(probs.shape[:2], 2.0))

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

    def words(self, ids: Sequence[int]) -> list[str]:
        return [str(number) for number in ids]

    def locate(self, memory: list[str], row: int, ids: Sequence[int]) -> list[Stretch]:
        return []

    def answers(self, most: int) -> Iterator[tuple[int, ...]]:
        """Every answer of up to `most` tokens, with its end; `none` alone ends too."""
        plain = [t for t in range(self.vocabulary) if t not in (self.start, self.end, self.none)]
        for length in range(most + 1):
            for body in product(plain, repeat=length):
                yield (*body, self.end)
