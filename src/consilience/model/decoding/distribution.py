"""The sum over passages of one step, and its most probable tokens.

Both stay in probability space and work on the memory order that the generator chose, which for a
large vocabulary may be vocabulary first. No logarithm of a whole vocabulary is taken, and no
distribution of a single passage is copied.
"""

import torch
from torch import Tensor

from consilience.generation import NextToken

BLOCK = 64
"""Tokens whose greatest weight is looked at first when the best of a vocabulary are sought."""


def summed(following: NextToken, log_weights: Tensor) -> NextToken:
    """`p(y_t | x, y_<t) = sum over d of w_d p(y_t | x, d, y_<t)` as one matrix product.

    The weights stand on the diagonals of a `[n, k * n]` matrix, so that the product reads the
    distributions where they lie.

    Args:
        following: Of `b * k` rows, `[b * k, n, v]`.
        log_weights: Of each passage, summing to one over `k`, `[b, k, n]`.

    Returns:
        `[b, n, v]`. With one passage it is `following` itself, in the generator's own memory.
    """
    b, k, n = log_weights.shape
    if k == 1:
        return following
    shares = log_weights.exp() / following.totals.reshape(b, k, n)
    diagonals = shares.diag_embed().transpose(1, 2).reshape(b, n, k * n)
    mixed = torch.bmm(diagonals, following.weights.reshape(b, k * n, -1))
    return NextToken(mixed, torch.ones_like(log_weights[:, 0]))


def best(weights: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The greatest weights of every open end and their tokens, greatest first.

    The `count` greatest stand in the `count` blocks with the greatest peaks, so only those are
    sorted.

    Args:
        weights: `[s, n, v]`, in any memory order.
        count: How many; at most `v` are given.

    Returns:
        Weights and ids, both `[s, n, count]`.
    """
    v = weights.shape[-1]
    blocks = v // BLOCK
    if count >= blocks:
        values, ids = weights.contiguous().topk(min(count, v), dim=-1)
        return values, ids
    inside = weights[..., : blocks * BLOCK].view(*weights.shape[:2], blocks, BLOCK)
    chosen = _peaks(inside).topk(count, dim=-1).indices[..., None]
    offsets = torch.arange(BLOCK, device=weights.device)
    rest = torch.arange(blocks * BLOCK, v, device=weights.device)
    found = inside.gather(-2, chosen.expand(*chosen.shape[:-1], BLOCK)).flatten(-2)
    found = torch.cat([found, weights[..., blocks * BLOCK :]], dim=-1)
    ids = (chosen * BLOCK + offsets).flatten(-2)
    ids = torch.cat([ids, rest.expand(*ids.shape[:-1], -1)], dim=-1)
    values, places = found.topk(count, dim=-1)
    return values, ids.gather(-1, places)


def _peaks(blocks: Tensor) -> Tensor:
    """The greatest of each block, `[s, n, blocks]`, read in memory order."""
    if blocks.stride(-1) == 1:
        return blocks.amax(-1)
    # Reduced with the vocabulary in front, neighbours in memory stay neighbours: 15 times faster.
    return blocks.permute(2, 3, 0, 1).amax(1).permute(1, 2, 0)
