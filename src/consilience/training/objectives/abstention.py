"""Objectives for saying "not in the documents": mass that no passage supports.

A generator with a support head has a token [NONE]; `p([NONE] first | x, d)` is its belief that the
passage d does not hold an answer to x. Because it is a probability that was trained as one, what it
says needs no threshold fitted afterwards; measure it with `consilience.evaluation` all the same.

Dimensions: `b` questions, `k` passages a question. A score of minus infinity says that there is no
passage.
"""

import torch
from torch import Tensor

from consilience.model.fusion import exact, log_prior
from consilience.training.objectives.reduction import LEAST_LOG, mean_where, present

_LARGEST = -1e-7  # the log probability from which 1 - p is taken to be 1e-7


def none_likelihood(
    scores: Tensor,
    none_log_probs: Tensor,
    unanswerable: Tensor,
    *,
    temperature: float | Tensor = 1.0,
) -> Tensor:
    """Whether the sum over passages says [NONE] exactly where there is no answer.

        p(none | x) = sum_k p(d_k | x) p([NONE] | x, d_k)
        L = -log p(none | x)          for unanswerable questions
        L = -log(1 - p(none | x))     for all others

    Use it for questions that are known to be unanswerable from what was retrieved, beside the
    likelihood of answers for the others. Do not use it when retrieval may have missed the answer:
    that would teach it to deny answers that are there.

    Source: the sum of Lewis et al., 2020, with the null answer of Rajpurkar et al., 2018, "Know
    What You Don't Know: Unanswerable Questions for SQuAD".

    Args:
        scores: Of the retriever, `[b, k]`.
        none_log_probs: log p([NONE] first | x, d), `[b, k]`.
        unanswerable: True where the passages hold no answer, `[b]`.
        temperature: Of the prior.

    Returns:
        The mean over questions that have a passage, in nats.

    Example:
        >>> half = torch.tensor([[0.5, 0.5]]).log()
        >>> round(none_likelihood(torch.zeros(1, 2), half, torch.tensor([True])).item(), 4)
        0.6931
    """
    kept = present(scores).any(-1)
    prior = log_prior(scores.masked_fill(~kept[:, None], 0.0), temperature).clamp_min(LEAST_LOG)
    said = torch.logsumexp(prior + exact(none_log_probs), dim=-1)
    return mean_where(-torch.where(unanswerable, said, _log_not(said)), kept)


def support_likelihood(none_log_probs: Tensor, supports: Tensor, known: Tensor) -> Tensor:
    """Whether each passage by itself says [NONE] exactly where it does not hold the answer.

        L = -log p([NONE] | x, d)          for passages that do not support
        L = -log(1 - p([NONE] | x, d))     for those that do

    Use it when it is known which passages support an answer: the gold context, passages that hold
    the answer word for word, hard negatives. It teaches the support head more than
    `none_likelihood` does, which sees the sum alone.

    Args:
        none_log_probs: log p([NONE] first | x, d), `[b, k]`.
        supports: True where the passage holds an answer, `[b, k]`.
        known: True where `supports` is known, `[b, k]`.

    Returns:
        The mean over passages for which it is known, in nats; zero when there is none.

    Example:
        >>> log_probs = torch.tensor([[0.9, 0.2]]).log()
        >>> supports, known = torch.tensor([[False, True]]), torch.tensor([[True, True]])
        >>> round(support_likelihood(log_probs, supports, known).item(), 4)
        0.1643
    """
    said = exact(none_log_probs)
    return mean_where(-torch.where(supports, _log_not(said), said), known)


def _log_not(log_p: Tensor) -> Tensor:
    """`log(1 - p)`, exact for small and large p; finite at p = 1, where gradients still pass."""
    bounded = torch.where(log_p > _LARGEST, log_p - log_p.detach() + _LARGEST, log_p)
    small = torch.log1p(-bounded.exp())
    large = torch.log(-torch.expm1(bounded))
    return torch.where(bounded < -0.6931, small, large)
