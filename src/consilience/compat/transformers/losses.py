"""From logits, or from the decoder's states, to the loss: transformers' own or the sum's.

With `hf_compat` the loss is that of `model.as_transformers`; without it that of `model.fusion`,
where the prior counts once for every answer, whether the start token counts is decided row by row,
and smoothing takes means. Targets are what the decoder is fed, one position earlier, in both.

Dimensions: `b` questions, `k` passages, `t` positions, `v` vocabulary.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from consilience.model import as_transformers
from consilience.model.as_transformers import LossOptions
from consilience.model.fusion import exact, log_likelihood, log_prior, smoothing

Sum = Literal["sequence", "token"]

ABSENT = -1e9
"""The log weight of a passage that is not there: no infinity, whose gradient would be NaN."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What the generator says of targets.

    Attributes:
        targets: `[b, t]`.
        log_probs: Of the targets given each passage, `[b, k, t]`.
        full: Logits, `[b, k, t, v]`, or None where only targets were scored.
        sums: `sum_v log p(v)`, `[b, k, t]`, or None.
    """

    targets: Tensor
    log_probs: Tensor
    full: Tensor | None = None
    sums: Tensor | None = None


def scored(logits: Tensor, targets: Tensor) -> Scored:
    """Targets scored by logits.

    Args:
        logits: `[b * k, t, v]`, question-major.
        targets: `[b, t]`.
    """
    full = logits.view(targets.shape[0], -1, *logits.shape[1:])
    each = targets[:, None, :, None].expand(*full.shape[:3], 1)
    total = exact(full).logsumexp(-1)
    log_probs = exact(full.gather(-1, each)[..., 0]) - total
    return Scored(targets, log_probs, full, exact(full).sum(-1) - full.shape[-1] * total)


def loss_of(
    found: Scored, scores: Tensor, *, fusion: Sum, options: LossOptions, hf_compat: bool
) -> Tensor:
    """`[b]` in nats, or a scalar if `options.reduce`.

    Args:
        found: What the generator says.
        scores: Of the retriever, `[b, k]`.
        fusion: Which sum.
        options: Padding, smoothing and the rest.
        hf_compat: Which of the two losses.
    """
    if not hf_compat:
        return _loss_of_the_sum(found, scores, fusion, options)
    if fusion == "sequence":
        compute, sums = as_transformers.sequence_loss, found.sums
    else:
        compute, sums = as_transformers.token_loss, _marginal_sums(found, scores, options)
    return compute(scores, found.log_probs, found.targets, options=options, sums=sums)


def _marginal_sums(found: Scored, scores: Tensor, options: LossOptions) -> Tensor | None:
    if not options.smoothing or found.full is None:
        return None
    return as_transformers.marginal_sums(scores, found.full)


def _loss_of_the_sum(found: Scored, scores: Tensor, fusion: Sum, options: LossOptions) -> Tensor:
    prior = log_prior(scores).clamp_min(ABSENT)
    mask = found.targets != options.pad
    if options.exclude_bos and options.bos is not None:
        mask[:, 0] &= found.targets[:, 0] != options.bos
    loss = -log_likelihood(prior, found.log_probs, mask, fusion=fusion)
    if options.smoothing and found.full is not None:
        words = exact(found.full).log_softmax(-1)
        extra = smoothing(prior, found.log_probs, words, mask, fusion=fusion)
        loss = loss + options.smoothing * extra
    return loss.sum() if options.reduce else loss


def marginal_logits(logits: Tensor, scores: Tensor) -> Tensor:
    """`log sum_k p(d_k | x) p(v | x, d_k, y_<t)`, the logits of RAG-Token.

    Args:
        logits: `[b * k, t, v]`, question-major.
        scores: `[b, k]`.

    Returns:
        `[b, t, v]`, at least float32.
    """
    words = exact(logits).log_softmax(-1).view(*scores.shape, *logits.shape[1:])
    prior = log_prior(scores).clamp_min(ABSENT)
    return torch.logsumexp(words + prior[..., None, None], dim=1)
