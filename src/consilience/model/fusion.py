"""The sum itself: `p(y | x) = sum over d of p(d | x) p(y | x, d)`, as pure functions of tensors.

Everything is in natural logarithms and at least float32: scores of 75 and 74.5 are the same number
in bfloat16, and a posterior made of them would be a coin toss. Double precision stays what it is.

Where the sum stands is the fusion:

| fusion | what is summed | rows of the generator |
|---|---|---|
| `sequence` | whole answers, weighted by the prior (RAG-Sequence) | one a passage |
| `token` | every token, weighted by the prior (RAG-Token) | one a passage |
| `average` | every token, weighted by fixed or learned weights | one a passage |
| `fid` | inside the decoder's attention to all passages (Fusion-in-Decoder) | k read, one written |
| `attention` | vectors of passages, inside the generator's input | one a question |
| `concat` | nothing: all passages stand in one text | one a question |

For the last three a question has one row, so the functions here see `k = 1` with a weight of one.

Dimensions are named by letters: `b` questions, `k` passages a question, `n` beams, `t` steps, `v`
vocabulary.

Sources: Lewis et al., 2020, "Retrieval-Augmented Generation for Knowledge-Intensive NLP Tasks",
section 2.1 (RAG-Sequence and RAG-Token); Izacard and Grave, 2021, "Leveraging Passage Retrieval
with Generative Models for Open Domain Question Answering" (Fusion-in-Decoder); Szegedy et al.,
2016, "Rethinking the Inception Architecture for Computer Vision", section 7 (label smoothing).
"""

from typing import Literal

import torch
from torch import Tensor

Fusion = Literal["sequence", "token", "fid", "attention", "average", "concat"]
FUSIONS: tuple[Fusion, ...] = ("sequence", "token", "fid", "attention", "average", "concat")
SUMMED: frozenset[Fusion] = frozenset({"sequence", "token", "average"})
"""The fusions that add up distributions of one row a passage."""


def exact(values: Tensor) -> Tensor:
    """Values in float32, or in float64 where they were."""
    return values if values.dtype == torch.float64 else values.float()


def log_prior(scores: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """`log p(d | x) = log_softmax(scores / temperature)` over a question's passages.

    Args:
        scores: Of a retriever, higher is better, `[b, k]`; minus infinity where a question has
            fewer passages than the others.
        temperature: Above zero; may be a parameter that training moves.

    Returns:
        `[b, k]`, at least float32.
    """
    values = exact(scores)
    # Infinity divided by a temperature that learns would make its gradient NaN.
    missing = values == float("-inf")
    tempered = values.masked_fill(missing, 0.0) / temperature
    return tempered.masked_fill(missing, float("-inf")).log_softmax(-1)


def marginal(log_weights: Tensor, log_probs: Tensor) -> Tensor:
    """`log sum_k w_k p_k`: the sum over passages of one step.

    Args:
        log_weights: Of each passage, `[b, k, n]`.
        log_probs: Of each next token given each passage, `[b, k, n, v]`.

    Returns:
        `[b, n, v]`.
    """
    return torch.logsumexp(exact(log_probs) + exact(log_weights)[..., None], dim=1)


def token_posterior(log_weights: Tensor, log_probs: Tensor) -> Tensor:
    """`log p(d | x, y_t, y_<t)`: which passage the tokens just chosen came from.

    Args:
        log_weights: Before the step, `[b, k, n]`.
        log_probs: Of the chosen tokens given each passage, `[b, k, n]`.

    Returns:
        `[b, k, n]`, a distribution over `k`.
    """
    return (exact(log_weights) + exact(log_probs)).log_softmax(1)


def step_weights(log_weights: Tensor, log_probs: Tensor, *, fusion: Fusion) -> Tensor:
    """`log w_d(y_<t)`: the weight that each passage has in the sum of each step.

    RAG-Sequence moves its weights to the posterior given what was written,
    `w_d(y_<t)` proportional to `p(d | x) p(y_<t | x, d)`, which makes the product of its steps its
    sum over whole answers. All others keep the weights they began with.

    Args:
        log_weights: At the first step, `[b, k]`.
        log_probs: Of the target tokens given each passage, zero at padding, `[b, k, t]`.
        fusion: Which sum.

    Returns:
        `[b, k, t]`, a distribution over `k`.
    """
    start = exact(log_weights)[..., None]
    if fusion != "sequence":
        return start.expand(log_probs.shape)
    written = exact(log_probs).cumsum(-1) - exact(log_probs)
    return (start + written).log_softmax(1)


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
    return torch.logsumexp(exact(log_weights) + _answers(log_probs, mask), dim=-1)


def token_log_likelihood(log_weights: Tensor, log_probs: Tensor, mask: Tensor) -> Tensor:
    """RAG-Token: `sum_t log sum_k p(d_k | x) p(y_t | x, d_k, y_<t)`.

    With other weights than the prior it is the weighted average of distributions, and with one row
    a question the plain log likelihood of a generator.

    Args:
        log_weights: log prior, `[b, k]`.
        log_probs: Of the target tokens given each passage, `[b, k, t]`.
        mask: True at tokens of the target, `[b, t]`.

    Returns:
        `[b]`.
    """
    steps = torch.logsumexp(exact(log_weights)[..., None] + exact(log_probs), dim=1)
    return steps.masked_fill(~mask.bool(), 0.0).sum(-1)


def log_likelihood(
    log_weights: Tensor, log_probs: Tensor, mask: Tensor, *, fusion: Fusion
) -> Tensor:
    """`log p(y | x)` under the fusion named; shapes as `sequence_log_likelihood`."""
    chosen = sequence_log_likelihood if fusion == "sequence" else token_log_likelihood
    return chosen(log_weights, log_probs, mask)


def token_posteriors(
    log_weights: Tensor, log_probs: Tensor, mask: Tensor, *, fusion: Fusion
) -> Tensor:
    """`p(d | x, y_<=t)` of every token of an answer, by Bayes' rule at every step.

    Args:
        log_weights: log prior, `[b, k]`.
        log_probs: Of the answer's tokens given each passage, `[b, k, t]`.
        mask: True at tokens, `[b, t]`.
        fusion: Which sum.

    Returns:
        `[b, k, t]`, a distribution over `k` at every token, zero at padding.
    """
    kept = exact(log_probs).masked_fill(~mask.bool()[:, None, :], 0.0)
    weights = step_weights(log_weights, kept, fusion=fusion)
    return token_posterior(weights, kept).exp() * mask[:, None, :]


def answer_posterior(
    log_weights: Tensor, log_probs: Tensor, mask: Tensor, *, fusion: Fusion
) -> Tensor:
    """`p(d | x, y)` of a whole answer.

    For RAG-Sequence this is Bayes' rule on the answer. Elsewhere every token has a posterior of its
    own; the answer's is their mean.

    Args:
        log_weights: log prior, `[b, k]`.
        log_probs: Of the answer's tokens given each passage, `[b, k, t]`.
        mask: True at tokens, `[b, t]`.
        fusion: Which sum.

    Returns:
        `[b, k]`, each row a distribution.
    """
    if fusion == "sequence":
        return (exact(log_weights) + _answers(log_probs, mask)).softmax(-1)
    return mean_over_tokens(token_posteriors(log_weights, log_probs, mask, fusion=fusion), mask)


def mean_over_tokens(shares: Tensor, mask: Tensor) -> Tensor:
    """The mean over the tokens of an answer, `[b, k, t]` and `[b, t]` to `[b, k]`."""
    return (shares * mask[:, None, :]).sum(-1) / mask.sum(-1, keepdim=True).clamp_min(1)


def smoothing(
    log_weights: Tensor, log_probs: Tensor, full: Tensor, mask: Tensor, *, fusion: Fusion
) -> Tensor:
    """What label smoothing of strength e adds to `-log p(y | x)`, divided by e.

    A smoothed target puts `1 - e` on the token that stands there and spreads e over the vocabulary,
    so a token's loss is `(1 - e) (-log p(y_t)) + e u_t` with `u_t = -(1 / v) sum over words of
    log p(word)`, that is `-log p(y_t) + e (u_t + log p(y_t))`.

    - Where every token is a sum (RAG-Token, average) or the only row, p is that sum, the marginal.
    - RAG-Sequence has a loss for each passage. For every distribution r over passages,
      `-log p(y | x) <= sum_d r_d (-log p(y | x, d)) + KL(r || prior)`, with equality at the
      posterior (the bound of expectation maximisation). Smoothing each passage's loss under the
      posterior, held constant as in the M-step, gives
      `-log p(y | x) + e sum_d r_d sum_t (u_dt + log p(y_t | x, d))`. The prior is no distribution
      over words and is not smoothed: its gradient remains prior minus posterior.

    With one passage the two are the same.

    Args:
        log_weights: log prior, `[b, k]`.
        log_probs: Of the target tokens given each passage, `[b, k, t]`.
        full: Log p of every word at every step given each passage, `[b, k, t, v]`.
        mask: True at tokens of the target, `[b, t]`.
        fusion: Which sum.

    Returns:
        Nats, `[b]`.
    """
    if fusion == "sequence":
        posterior = answer_posterior(log_weights, log_probs, mask, fusion=fusion).detach()
        excess = exact(log_probs) - exact(full).mean(-1)
        return (posterior * _answers(excess, mask)).sum(-1)
    weights = exact(log_weights)[..., None].expand(log_probs.shape)
    steps = torch.logsumexp(weights + exact(log_probs), dim=1)
    spread = marginal(weights, full).mean(-1)
    return (steps - spread).masked_fill(~mask.bool(), 0.0).sum(-1)


def _answers(log_probs: Tensor, mask: Tensor) -> Tensor:
    """Sums over the tokens of an answer, `[b, k, t]` and `[b, t]` to `[b, k]`."""
    return exact(log_probs).masked_fill(~mask.bool()[:, None, :], 0.0).sum(-1)
