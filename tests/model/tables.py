"""A random autoregressive model over a handful of tokens, small enough to enumerate.

It implements `Generator` from the outside: any prefix and passage has its own random distribution,
drawn from a seed, so every sum over passages and over answers can be worked out exhaustively.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from typing import Any

import torch
from torch import Tensor

from consilience.generation import NextToken, Pair, Stretch
from consilience.model.decoding import Decoded, DecodingOptions, decode
from consilience.model.fusion import Fusion, log_likelihood, log_prior

PASSAGES = ["one", "two", "three"]
SCORES = torch.tensor([[0.8, 0.2, -0.5]])
QUESTIONS = ["who", "what", "when", "where"]
MOST = 3


@dataclass
class TableState:
    """What each beam of each row has written."""

    prefixes: list[list[tuple[int, ...]]] = field(default_factory=list)


class TableGenerator:
    """Token 0 starts, 1 ends; with `none`, token 2 says "not here".

    `asked` holds how many open ends each step had, rows times beams.
    """

    def __init__(self, vocabulary: int = 5, *, none: bool = False, sharpness: float = 1.5) -> None:
        self.vocabulary, self.sharpness = vocabulary, sharpness
        self.start, self.end = 0, 1
        self.none: int | None = 2 if none else None
        self.asked: list[tuple[int, int]] = []

    def distribution(self, row: str, prefix: tuple[int, ...]) -> Tensor:
        """log p of the next token, `[vocabulary]`."""
        return _distribution(row, prefix, self.vocabulary, self.none, self.sharpness)

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
        self.asked.append((ids.shape[0], ids.shape[1]))
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


class ShrinkingTables(TableGenerator):
    """Rows that are settled can be left out, and memories be joined."""

    def join(self, memories: Sequence[list[str]]) -> list[str]:
        return [row for memory in memories for row in memory]

    def keep(
        self, memory: list[str], state: TableState, rows: Tensor
    ) -> tuple[list[str], TableState]:
        kept = rows.tolist()
        return [memory[row] for row in kept], TableState([state.prefixes[row] for row in kept])


@lru_cache(maxsize=100_000)
def _distribution(
    row: str, prefix: tuple[int, ...], vocabulary: int, none: int | None, sharpness: float
) -> Tensor:
    seed = sum(ord(c) * 31**i for i, c in enumerate(row)) + sum(
        (t + 1) * 97 ** (i + 1) for i, t in enumerate(prefix)
    )
    noise = torch.randn(vocabulary, generator=torch.Generator().manual_seed(seed % (2**31)))
    noise[0] = -1e4
    if none is not None and prefix:
        noise[none] = -1e4
    return (sharpness * noise).log_softmax(-1)


def memory_of(generator: TableGenerator, questions: Sequence[str]) -> list[str]:
    """Every question over every passage."""
    return generator.read([Pair(q, "", p) for q in questions for p in PASSAGES])


def ask_all(
    generator: TableGenerator,
    questions: Sequence[str],
    scores: Tensor = SCORES,
    **options: Any,
) -> list[list[Decoded]]:
    """All answers to each question."""
    weights = log_prior(scores.expand(len(questions), -1))
    how = DecodingOptions(**{"max_new_tokens": MOST} | options)
    return decode(generator, memory_of(generator, questions), weights, options=how)


def ask(
    generator: TableGenerator, questions: Sequence[str], scores: Tensor = SCORES, **options: Any
) -> list[Decoded]:
    """The best answer to each question."""
    return [best for best, *_ in ask_all(generator, questions, scores, **options)]


def likelihood(
    generator: TableGenerator, question: str, ids: Sequence[int], fusion: Fusion
) -> float:
    """log p of tokens as they are, from the definition of the sum."""
    memory = memory_of(generator, [question])
    probs = generator.score(memory, torch.tensor([list(ids)] * len(PASSAGES)))[None]
    mask = torch.ones(1, len(ids), dtype=torch.bool)
    return float(log_likelihood(log_prior(SCORES), probs, mask, fusion=fusion))


def truth(generator: TableGenerator, question: str, fusion: Fusion) -> dict[tuple[int, ...], float]:
    """log p of every answer of up to `MOST` tokens, worked out one by one."""
    return {
        ids[:-1]: likelihood(generator, question, ids, fusion) for ids in generator.answers(MOST)
    }
