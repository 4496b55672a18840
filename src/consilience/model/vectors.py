"""Encoders as `RagModel` sees them: ids in, vectors out, gradients through.

`encoding.Encoder` turns texts into vectors for a store; a `VectorEncoder` is the differentiable
half below it. Nothing here imports transformers: a model of theirs is called, not known.
"""

from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from consilience.encoding.bert import mean_pool
from consilience.encoding.compact import CompactEncoder
from consilience.errors import UsageError

Pooling = Literal["pooler", "first", "mean"]
POOLINGS: tuple[Pooling, ...] = ("pooler", "first", "mean")


class VectorEncoder(Protocol):
    """Rows of ids to one vector each."""

    def __call__(self, ids: Tensor, mask: Tensor) -> Tensor:
        """`[rows, length]` ids and mask to `[rows, size]`; differentiable."""
        ...


class PooledEncoder(nn.Module):
    """A transformers encoder with its states pooled to one vector.

    Args:
        model: DPR's question or context encoder, BERT, or anything alike.
        pooling: `pooler` takes the model's own (DPR), `first` the state of the first token, `mean`
            the mean of the token states. Vectors keep their length: DPR's inner products are
            trained as they are.

    Raises:
        UsageError: An unknown pooling.
    """

    def __init__(self, model: nn.Module, *, pooling: Pooling = "pooler") -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise UsageError(
                f"unknown pooling {pooling!r}", hint=f"choose one of: {', '.join(POOLINGS)}"
            )
        self.model, self.pooling = model, pooling

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """`[rows, length]` ids and mask to `[rows, size]`."""
        found: Any = self.model(input_ids=ids, attention_mask=mask.long(), return_dict=True)
        if self.pooling == "pooler":
            vectors: Tensor = found.pooler_output
            return vectors
        return _pooled(found.last_hidden_state, mask, self.pooling)


class CompactVectors(nn.Module):
    """The retriever's half of the model that ships, differentiable; vectors have length one.

    Args:
        encoder: Whose layers it shares.
        side: Its layers for questions, or those for passages; often the same.
    """

    def __init__(
        self, encoder: CompactEncoder, *, side: Literal["questions", "passages"] = "passages"
    ) -> None:
        super().__init__()
        self.embeddings = encoder.embeddings
        self.layers = encoder.asking if side == "questions" else encoder.layers

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """`[rows, length]` ids and mask to `[rows, size]`."""
        states = self.layers(self.embeddings(ids, torch.zeros_like(ids)), mask)
        return mean_pool(states, mask)


def _pooled(states: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """`[rows, length, size]` states to `[rows, size]`."""
    if pooling == "first":
        return states[:, 0]
    weights = mask.to(states.dtype)[..., None]
    return (states * weights).sum(1) / weights.sum(1).clamp_min(1)
