"""The weighted sum of `hybrid` over tensors, so that its weight can be learned.

`fuse` ranks for people; this is the same number with a gradient. It reaches the share, the dense
scores and so the encoders. torch is imported by whoever holds the tensors.
"""

from typing import TYPE_CHECKING

from consilience.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor


def fuse_scores(lexical: "Tensor", dense: "Tensor", share: "Tensor") -> "Tensor":
    """`(1 - w) * scaled(lexical) + w * scaled(dense)`, as `hybrid.fuse` has it.

    `scaled` takes the least score of a question's candidates to 0 and the largest to 1. A candidate
    that a half did not bring has minus infinity there and counts 0.

    To train the weight, let `w = sigmoid(a)` with a parameter `a`, and hand the result to
    `RagModel` as `scores`; `d log p(y | x) / d w` then says how far the dense half is to be
    trusted. Candidates must be those of both halves: scaled over the few that are kept, the scores
    would be others than those of the search.

    Args:
        lexical: By words, `[b, candidates]`; minus infinity where that half brought none.
        dense: By vectors, `[b, candidates]`, likewise.
        share: w, the weight of `dense`, 0 to 1, one number or `[b, 1]`.

    Returns:
        `[b, candidates]`; minus infinity where neither half brought anything.

    Raises:
        UsageError: The halves do not have the same candidates.
    """
    if lexical.shape != dense.shape:
        raise UsageError(
            f"the halves score {list(lexical.shape)} and {list(dense.shape)} candidates",
            hint="score the union of their candidates; minus infinity where a half has none",
        )
    fused = (1 - share) * _scaled(lexical) + share * _scaled(dense)
    absent = lexical.isneginf() & dense.isneginf()
    return fused.masked_fill(absent, float("-inf"))


def _scaled(scores: "Tensor") -> "Tensor":
    """`[b, candidates]` to 0 … 1 over those that are there; 1 where all are alike."""
    there = ~scores.isneginf()
    exact = scores.float()
    low = exact.masked_fill(~there, float("inf")).amin(-1, keepdim=True)
    high = exact.masked_fill(~there, float("-inf")).amax(-1, keepdim=True)
    width = high - low
    flat = ~(width > 0)  # also where nothing is there and the width is no number
    above = exact.masked_fill(~there, 0.0) - low.masked_fill(flat, 0.0)
    return (above / width.masked_fill(flat, 1.0)).masked_fill(flat, 1.0).masked_fill(~there, 0.0)
