"""Large contrastive batches in little memory: two passes, and exactly the gradients of one.

The loss of a batch depends on the encoders only through the vectors. So all texts are encoded chunk
by chunk without a graph, the loss is taken of all vectors at once and differentiated with respect
to them, and then every chunk is encoded again, with a graph this time, and sent its part of that
gradient. Memory is that of one chunk and of all vectors; the price is a second forward pass.

Source: Gao et al., 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup".
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Tower:
    """One side of a contrast: an encoder and what it has to encode.

    Attributes:
        encode: From a chunk to its vectors, `[rows, d]`.
        chunks: Anything that `encode` takes, each small enough for a graph.
    """

    encode: Callable[[Any], Tensor]
    chunks: Sequence[Any]


def cached_gradients(
    towers: Sequence[Tower], loss: Callable[..., Tensor], *, scale: float = 1.0
) -> Tensor:
    """Add the gradients of a loss over all chunks to the parameters; the loss itself.

    Chunks see the same random numbers in both passes, so dropout drops the same units twice.

    Use it when the batch that a contrast wants does not fit into memory. Do not use it when it
    fits: it costs a third more. Encoders whose rows depend on one another (batch normalisation)
    give other results in chunks than in one piece, here as anywhere.

    Args:
        towers: Mostly two, questions and passages.
        loss: From the vectors of each tower, `[n, d]` each, to a scalar; its own parameters, a
            temperature for instance, get their gradients, too.
        scale: What the loss is multiplied by before it is differentiated: one over the number of
            accumulated batches, or the scale of mixed precision.

    Returns:
        The loss, not scaled and without a graph.

    Example:
        >>> layer = torch.nn.Linear(3, 2)
        >>> tower = Tower(layer, torch.randn(8, 3).split(2))
        >>> value = cached_gradients([tower], lambda vectors: vectors.square().mean())
        >>> layer.weight.grad is not None
        True
    """
    states: list[list[_RandomState]] = []
    vectors = [_encoded(tower, states) for tower in towers]
    value = loss(*vectors)
    (value * scale).backward()  # type: ignore[no-untyped-call]
    for tower, whole, random in zip(towers, vectors, states, strict=True):
        if whole.grad is not None:
            _send_back(tower, whole.grad, random)
    return value.detach()


def _encoded(tower: Tower, states: list[list["_RandomState"]]) -> Tensor:
    """The vectors of all chunks as one leaf, and the random states that each chunk began with."""
    began, vectors = [], []
    for chunk in tower.chunks:
        began.append(_RandomState.now())
        with torch.no_grad():
            vectors.append(tower.encode(chunk))
    states.append(began)
    return torch.cat(vectors).requires_grad_()


def _send_back(tower: Tower, gradient: Tensor, states: list["_RandomState"]) -> None:
    """Encode every chunk again and differentiate it against its part of the gradient."""
    start = 0
    for chunk, state in zip(tower.chunks, states, strict=True):
        with state.again(), torch.enable_grad():
            vectors = tower.encode(chunk)
        part = gradient[start : start + len(vectors)]
        torch.autograd.backward(vectors, part.to(vectors.dtype))
        start += len(vectors)


@dataclass(frozen=True, slots=True)
class _RandomState:
    """Where torch's random numbers stand, on the processor and on every card that is in use."""

    cpu: Tensor
    cards: tuple[Tensor, ...]

    @classmethod
    def now(cls) -> "_RandomState":
        cards = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return cls(torch.get_rng_state(), tuple(cards))

    @contextmanager
    def again(self) -> Iterator[None]:
        """Draw what was drawn from here on, and afterwards go on as if nothing had been drawn."""
        with torch.random.fork_rng(devices=range(len(self.cards))):
            torch.set_rng_state(self.cpu)
            if self.cards:
                torch.cuda.set_rng_state_all(list(self.cards))
            yield
