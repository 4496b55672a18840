"""A transformers encoder-decoder behind the `Generator` protocol without any cache.

Every step runs the whole decoder over everything that was written, so it is slow and hard to get
wrong: the reference for generators that keep caches, and for searches beside the library's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from consilience.generation import NextToken, Pair, Stretch


@dataclass
class Read:
    """Encoder states `[rows, length, hidden]` and their mask."""

    states: Tensor
    mask: Tensor


@dataclass
class Prefixes:
    """What every open end has written, the start token first, `[rows, n, t]`."""

    ids: Tensor


class UncachedGenerator:
    """Any encoder-decoder of transformers; its texts are numbers."""

    none: int | None = None

    def __init__(self, model: Any) -> None:
        self.model = model.eval()
        self.start: int = model.config.decoder_start_token_id
        self.end: int = model.config.eos_token_id

    @property
    def vocabulary_size(self) -> int:
        return int(self.model.config.vocab_size)

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def read_ids(self, ids: Tensor, mask: Tensor) -> Read:
        with torch.no_grad():
            return Read(self.model.get_encoder()(ids, attention_mask=mask)[0], mask)

    def read(self, pairs: Sequence[Pair]) -> Read:
        rows = [[int(word) for word in f"{p.question} {p.passage}".split()] for p in pairs]
        length = max(map(len, rows))
        ids = torch.tensor([[*row, *[0] * (length - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
        return self.read_ids(ids, mask)

    def together(self, memory: Read, k: int) -> Read:
        rows = memory.states.shape[0] // k
        return Read(
            memory.states.reshape(rows, -1, memory.states.shape[-1]), memory.mask.reshape(rows, -1)
        )

    def begin(self, memory: Read) -> tuple[Prefixes, NextToken]:
        state = Prefixes(torch.full((len(memory.states), 1, 1), self.start))
        return state, self._next(memory, state)

    def step(self, memory: Read, state: Prefixes, ids: Tensor, parents: Tensor) -> NextToken:
        t = state.ids.shape[-1]
        before = state.ids.gather(1, parents[..., None].expand(-1, -1, t))
        state.ids = torch.cat([before, ids[..., None]], dim=-1)
        return self._next(memory, state)

    def keep(self, memory: Read, state: Prefixes, rows: Tensor) -> tuple[Read, Prefixes]:
        return Read(memory.states[rows], memory.mask[rows]), Prefixes(state.ids[rows])

    def _next(self, memory: Read, state: Prefixes) -> NextToken:
        rows, n, t = state.ids.shape
        logits = self._logits(memory, state.ids.reshape(rows * n, t), n)[:, -1].view(rows, n, -1)
        weights = (logits - logits.amax(-1, keepdim=True)).exp()
        return NextToken(weights, weights.sum(-1))

    def _logits(self, memory: Read, ids: Tensor, n: int) -> Tensor:
        """Of every position, `[rows * n, t, v]`."""
        with torch.no_grad():
            out = self.model(
                encoder_outputs=(memory.states.repeat_interleave(n, dim=0),),
                attention_mask=memory.mask.repeat_interleave(n, dim=0),
                decoder_input_ids=ids,
                use_cache=False,
            )
        return out.logits.float()

    def score(self, memory: Read, targets: Tensor) -> Tensor:
        start = torch.full_like(targets[:, :1], self.start)
        logits = self._logits(memory, torch.cat([start, targets[:, :-1]], dim=1), 1)
        return logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))

    def words(self, ids: Sequence[int]) -> list[str]:
        return [str(number) for number in ids]

    def locate(self, memory: Read, row: int, ids: Sequence[int]) -> list[Stretch]:
        return []
