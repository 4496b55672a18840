"""How the losses of single questions become one number: means over those that count, and no NaN.

A batch in which nothing counts (no positive, no target, no passage) has a loss of zero whose
gradient is zero, so that one odd batch neither stops a run nor poisons its weights.
"""

import torch
from torch import Tensor

LEAST_LOG = -1e9
"""What stands for the logarithm of zero where an infinity would turn into NaN."""


def mean_where(values: Tensor, kept: Tensor) -> Tensor:
    """The mean of `values` where `kept` is true, zero when it nowhere is.

    Args:
        values: Of any shape; what is not kept may be NaN or infinite.
        kept: True at what counts, of the same shape.

    Returns:
        A scalar.
    """
    return values.masked_fill(~kept, 0.0).sum() / kept.sum().clamp_min(1)


def present(scores: Tensor) -> Tensor:
    """Where there is a passage: a score of minus infinity says that there is none, `[b, k]`."""
    return scores != float("-inf")


def safe_log_softmax(logits: Tensor, kept: Tensor) -> Tensor:
    """`log_softmax` over the last dimension among what is kept, zero elsewhere.

    Args:
        logits: `[..., k]`.
        kept: True at what takes part, `[..., k]`; a row may be empty.

    Returns:
        `[..., k]`, finite throughout, so that products with a probability of zero are zero.
    """
    empty = ~kept.any(-1, keepdim=True)
    masked = logits.masked_fill(~kept, float("-inf")).masked_fill(empty, 0.0)
    return masked.log_softmax(-1).masked_fill(~kept, 0.0)


def divergence(target: Tensor, log_probs: Tensor) -> Tensor:
    """`KL(target || p) = sum target (log target - log p)` over the last dimension, in nats.

    Args:
        target: Probabilities, `[..., k]`.
        log_probs: log p, finite where `target` is zero, `[..., k]`.

    Returns:
        `[...]`.
    """
    terms: Tensor = torch.special.xlogy(target, target) - target * log_probs
    return terms.sum(-1)
