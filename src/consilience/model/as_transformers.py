"""The losses of transformers' RAG classes, quirk for quirk, as pure functions of log p.

They take the log p of target tokens and, for label smoothing, sums over the vocabulary: never the
logits, so whoever computes those two can do so in pieces. Three habits of that library are kept
here and nowhere else:

- RAG-Sequence adds the log prior at the second target position and drops it with that position
  when it is padding, so a retriever learns nothing from answers of one token.
- `exclude_bos` holds for a batch only if every row of it starts with the start token.
- Smoothing of RAG-Sequence counts the prior once for every token of the vocabulary.

`consilience.model.fusion` has the sums as they should be.

Dimensions: `b` questions, `k` passages, `t` target positions, `v` vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from consilience.errors import UsageError
from consilience.model.fusion import exact, log_prior


@dataclass(frozen=True, slots=True)
class LossOptions:
    """What transformers reads from its configurations when it computes a loss.

    Attributes:
        pad: The generator's padding id; targets that equal it do not count.
        vocabulary_size: Of the generator, `v`.
        bos: The id that starts an answer, or None.
        smoothing: The share of the loss that label smoothing takes, from 0 to 1.
        exclude_bos: Whether the first target is left out if it is `bos`; RAG-Sequence only.
        reduce: Whether the losses are added up over the questions.
    """

    pad: int
    vocabulary_size: int
    bos: int | None = None
    smoothing: float = 0.0
    exclude_bos: bool = False
    reduce: bool = False


def shifted_targets(ids: Tensor, pad: int) -> Tensor:
    """What the decoder is asked for when it is fed `ids`: the same, one position earlier.

    Args:
        ids: What the decoder is fed, `[b, t]`.
        pad: What stands in the last position.

    Returns:
        `[b, t]`.
    """
    return torch.cat([ids[:, 1:], ids.new_full((ids.shape[0], 1), pad)], dim=1)


def token_loss(
    scores: Tensor,
    log_probs: Tensor,
    targets: Tensor,
    *,
    options: LossOptions,
    sums: Tensor | None = None,
) -> Tensor:
    """RAG-Token: `-sum_t log sum_k p(d_k | x) p(y_t | x, d_k, y_<t)`, smoothed.

    With smoothing `e` the loss is `(1 - e) nll - e / v sum_t sum_v log m(t, v)`, where `m` is the
    sum over passages.

    Args:
        scores: Of the retriever, `[b, k]`.
        log_probs: Log p of the targets given each passage, `[b, k, t]`.
        targets: As `shifted_targets` makes them, `[b, t]`.
        options: Padding, smoothing and the rest.
        sums: `sum_v log m(t, v)`, `[b, t]`, as `marginal_sums`; needed only for smoothing.

    Returns:
        `[b]` in nats, or their sum, a scalar.

    Raises:
        UsageError: Smoothing without `sums`.
    """
    padding = targets == options.pad
    steps = torch.logsumexp(exact(log_probs) + log_prior(scores)[..., None], dim=1)
    nll = -steps.masked_fill(padding, 0.0).sum(-1)
    smooth = None if sums is None else -exact(sums).masked_fill(padding, 0.0).sum(-1)
    return _smoothed(nll, smooth, options)


def marginal_sums(scores: Tensor, logits: Tensor) -> Tensor:
    """`sum_v log sum_k p(d_k | x) p(v | x, d_k, y_<t)`: what smoothing of RAG-Token adds.

    Args:
        scores: Of the retriever, `[b, k]`.
        logits: Of the generator, `[b, k, t, v]`.

    Returns:
        `[b, t]`.
    """
    log_probs = exact(logits).log_softmax(-1)
    return torch.logsumexp(log_probs + log_prior(scores)[..., None, None], dim=1).sum(-1)


def sequence_loss(
    scores: Tensor,
    log_probs: Tensor,
    targets: Tensor,
    *,
    options: LossOptions,
    sums: Tensor | None = None,
) -> Tensor:
    """RAG-Sequence: `-log sum_k exp(sum_t l(k, t))`, `l = log p(y_t | x, d_k, y_<t)`.

    The log prior is part of `l(k, 1)`, the second position, and counts only if that is not
    padding. With smoothing `e` the loss is `(1 - e) nll - e / v log sum_k exp(sum_t s(k, t))`,
    where `s(k, t)` sums over the vocabulary and so has the prior `v` times.

    Args:
        scores: Of the retriever, `[b, k]`.
        log_probs: Log p of the targets given each passage, `[b, k, t]`.
        targets: As `shifted_targets` makes them, `[b, t]`.
        options: Padding, start token, smoothing and the rest.
        sums: `sum_v log p(v | x, d_k, y_<t)`, `[b, k, t]`; needed only for smoothing.

    Returns:
        `[b]` in nats, or their sum, a scalar.

    Raises:
        UsageError: Smoothing without `sums`.
    """
    padding = (targets == options.pad)[:, None]
    prior = _at_second_position(log_prior(scores), targets.shape[1])
    steps = (exact(log_probs) + prior).masked_fill(padding, 0.0)
    nll = -torch.logsumexp(steps[..., _first_counted(targets, options) :].sum(-1), dim=1)
    if sums is None:
        return _smoothed(nll, None, options)
    all_steps = exact(sums) + options.vocabulary_size * prior
    smooth = -torch.logsumexp(all_steps.masked_fill(padding, 0.0).sum(-1), dim=1)
    return _smoothed(nll, smooth, options)


def _at_second_position(prior: Tensor, steps: int) -> Tensor:
    """The prior at position 1 and nothing elsewhere, `[b, k, t]`."""
    second = torch.arange(steps, device=prior.device) == 1
    return torch.where(second, prior[..., None], 0.0)


def _first_counted(targets: Tensor, options: LossOptions) -> int:
    if not options.exclude_bos or options.bos is None:
        return 0
    return int((targets[:, 0] == options.bos).all())


def _smoothed(nll: Tensor, smooth: Tensor | None, options: LossOptions) -> Tensor:
    loss = nll
    if options.smoothing:
        share = options.smoothing / options.vocabulary_size
        loss = (1.0 - options.smoothing) * nll + share * _required(smooth, options)
    return loss.sum() if options.reduce else loss


def _required(smooth: Tensor | None, options: LossOptions) -> Tensor:
    if smooth is None:
        raise UsageError(
            f"label smoothing of {options.smoothing} needs the sums over the vocabulary,"
            " received None",
            hint="pass sums=, or set the smoothing to 0",
        )
    return smooth
