"""The sum itself: `p(y | x) = sum over d of p(d | x) p(y | x, d)`, as pure functions of tensors.

Everything is in natural logarithms and float32: scores of 75 and 74.5 are the same number in
bfloat16, and a posterior made of them would be a coin toss.

Dimensions are named by letters: `b` questions, `k` passages a question, `n` beams, `t` steps, `v`
vocabulary.

Source: Lewis et al., 2020, "Retrieval-Augmented Generation for Knowledge-Intensive NLP Tasks",
section 2.1 (RAG-Sequence and RAG-Token).
"""

from typing import Literal

import torch
from torch import Tensor

Fusion = Literal["sequence", "token"]
FUSIONS: tuple[Fusion, ...] = ("sequence", "token")


def log_prior(scores: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """`log p(d | x) = log_softmax(scores / temperature)` over a question's passages.

    Args:
        scores: Of a retriever, higher is better, `[b, k]`; minus infinity where a question has
            fewer passages than the others.
        temperature: Above zero; may be a parameter that training moves.

    Returns:
        `[b, k]`, float32.
    """
    return (scores.float() / temperature).log_softmax(-1)


def marginal(log_weights: Tensor, log_probs: Tensor) -> Tensor:
    """`log sum_k w_k p_k`: the sum over passages of one step.

    Args:
        log_weights: Of each passage, `[b, k, n]`.
        log_probs: Of each next token given each passage, `[b, k, n, v]`.

    Returns:
        `[b, n, v]`.
    """
    return torch.logsumexp(log_probs.float() + log_weights.float()[..., None], dim=1)


def token_posterior(log_weights: Tensor, log_probs: Tensor) -> Tensor:
    """`log p(d | x, y_t, y_<t)`: which passage the tokens just chosen came from.

    Args:
        log_weights: Before the step, `[b, k, n]`.
        log_probs: Of the chosen tokens given each passage, `[b, k, n]`.

    Returns:
        `[b, k, n]`, a distribution over `k`.
    """
    return (log_weights.float() + log_probs.float()).log_softmax(1)


def sequence_log_likelihood(log_weights: Tensor, log_probs: Tensor, mask: Tensor) -> Tensor:
    """RAG-Sequence: `log sum_k p(d_k | x) prod_t p(y_t | x, d_k, y_<t)`.

    The prior counts once for an answer of any length, one token included, so its gradient is
    posterior minus prior always.

    Args:
        log_weights: log prior, `[b, k]`.
        log_probs: Of the target tokens given each passage, `[b, k, t]`.
        mask: True at tokens of the target, `[b, t]`.

    Returns:
        `[b]`.
    """
    answers = (log_probs.float() * mask[:, None, :]).sum(-1)
    return torch.logsumexp(log_weights.float() + answers, dim=-1)


def token_log_likelihood(log_weights: Tensor, log_probs: Tensor, mask: Tensor) -> Tensor:
    """RAG-Token: `sum_t log sum_k p(d_k | x) p(y_t | x, d_k, y_<t)`.

    Args:
        log_weights: log prior, `[b, k]`.
        log_probs: Of the target tokens given each passage, `[b, k, t]`.
        mask: True at tokens of the target, `[b, t]`.

    Returns:
        `[b]`.
    """
    steps = torch.logsumexp(log_weights.float()[..., None] + log_probs.float(), dim=1)
    return (steps * mask).sum(-1)


def answer_posterior(
    log_weights: Tensor, log_probs: Tensor, mask: Tensor, *, fusion: Fusion
) -> Tensor:
    """`p(d | x, y)` of a whole answer.

    For RAG-Sequence this is Bayes' rule on the answer. Under RAG-Token every token has a posterior
    of its own; the answer's is their mean.

    Args:
        log_weights: log prior, `[b, k]`.
        log_probs: Of the answer's tokens given each passage, `[b, k, t]`.
        mask: True at tokens, `[b, t]`.
        fusion: Which sum.

    Returns:
        `[b, k]`, each row a distribution.
    """
    if fusion == "sequence":
        answers = (log_probs.float() * mask[:, None, :]).sum(-1)
        return (log_weights.float() + answers).softmax(-1)
    tokens = (log_weights.float()[..., None] + log_probs.float()).softmax(1) * mask[:, None, :]
    return tokens.sum(-1) / mask.sum(-1, keepdim=True).clamp_min(1)


def log_likelihood(
    log_weights: Tensor, log_probs: Tensor, mask: Tensor, *, fusion: Fusion
) -> Tensor:
    """`log p(y | x)` under the fusion named; shapes as `sequence_log_likelihood`."""
    chosen = {"sequence": sequence_log_likelihood, "token": token_log_likelihood}[fusion]
    return chosen(log_weights, log_probs, mask)
