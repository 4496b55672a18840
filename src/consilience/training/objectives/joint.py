r"""Objectives that train a retriever by what a generator does with its passages.

The first is the likelihood of the sum itself; the others read off the generator which passages it
could use and draw the prior there. No model stands in here: scores of passages and log
probabilities of the target's tokens come in, a scalar goes out.

| objective | what a passage is worth | gradient reaches |
|---|---|---|
| `marginal_likelihood` | posterior p(d \| x, y) | retriever and generator |
| `emdr2` | posterior, the generator held fixed | retriever |
| `perplexity_distillation` | likelihood of the target given it alone | retriever |
| `attention_distillation` | attention that it drew | retriever |
| `leave_one_out` | what is lost without it | retriever |

The last four are usually added to a loss of the generator (`Mixture`).

Dimensions: `b` questions, `k` passages a question, `t` tokens of the target. A score of minus
infinity says that there is no passage; a question without passage or without target is left out.

Source of the last four and of their settings: Izacard et al., 2022, "Atlas: Few-shot Learning with
Retrieval Augmented Language Models", section 2.2.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from consilience.errors import UsageError
from consilience.model.fusion import Fusion, exact, log_likelihood, log_prior, step_weights
from consilience.training.objectives.reduction import (
    LEAST_LOG,
    divergence,
    mean_where,
    present,
    safe_log_softmax,
)


@dataclass(frozen=True, slots=True)
class Alignment:
    """How a retriever's scores and what passages are worth become two distributions.

        p = softmax(scores / sqrt(dimension) / score_temperature)
        target = softmax(worth / target_temperature)
        L = KL(target || p)

    Attributes:
        dimension: Of the vectors whose inner products the scores are; 1 takes scores as they are.
        score_temperature: Atlas has 0.01.
        target_temperature: Atlas has 0.01; the smaller, the more one passage takes everything.
        as_atlas: Divide the sum of the divergences by questions times passages, as Atlas does,
            rather than by questions. The gradient is then k times smaller.
    """

    dimension: int = 1
    score_temperature: float = 0.01
    target_temperature: float = 0.01
    as_atlas: bool = False

    def __post_init__(self) -> None:
        if min(self.dimension, self.score_temperature, self.target_temperature) <= 0:
            raise UsageError(
                "dimension and temperatures must be above zero, received "
                f"dimension={self.dimension}, score_temperature={self.score_temperature}, "
                f"target_temperature={self.target_temperature}",
                hint="Leave them out for Atlas's 0.01 and 0.01, and give the size of the vectors.",
            )


def marginal_likelihood(
    scores: Tensor,
    log_probs: Tensor,
    mask: Tensor,
    *,
    fusion: Fusion = "sequence",
    temperature: float | Tensor = 1.0,
) -> Tensor:
    """`-log p(y | x)`, the sum over passages: retriever and generator learn from one another.

        sequence:  L = -log sum_k p(d_k | x) prod_t p(y_t | x, d_k, y_<t)
        token:     L = -sum_t log sum_k p(d_k | x) p(y_t | x, d_k, y_<t)

    Its gradient with respect to the log prior of RAG-Sequence is prior minus posterior: a passage
    gains exactly what the answer says for it beyond what the question did.

    Use it when generator and retriever both are good enough for the posterior to mean something.
    Do not use it alone from scratch: what the retriever does not find, the generator learns to do
    without (see `training.collapse`).

    Source: Lewis et al., 2020, "Retrieval-Augmented Generation for Knowledge-Intensive NLP Tasks".

    Args:
        scores: Of the retriever, `[b, k]`.
        log_probs: Of the target's tokens given each passage, `[b, k, t]`.
        mask: True at tokens of the target, `[b, t]`.
        fusion: `sequence`, `token`, or any that has one row a question.
        temperature: Of the prior; may be a parameter.

    Returns:
        The mean over questions, in nats an answer.

    Example:
        >>> scores = torch.zeros(1, 2)
        >>> log_probs = torch.tensor([[[0.5], [0.25]]]).log()
        >>> marginal_likelihood(scores, log_probs, torch.tensor([[True]])).exp().item()
        2.6666667461395264
    """
    kept = _askable(scores, mask)
    prior = _prior(scores, temperature)
    return mean_where(-log_likelihood(prior, log_probs, mask, fusion=fusion), kept)


def emdr2(
    scores: Tensor,
    log_probs: Tensor,
    mask: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    as_atlas: bool = False,
) -> Tensor:
    """`-log sum_k p(d_k | x) sg[p(y | x, d_k)]`: the marginal, learned from by the retriever alone.

    The generator is meant to learn from a loss of its own that reads all passages together
    (Fusion-in-Decoder), while its likelihood under single passages teaches the retriever.

    Source: Sachan et al., 2021, "End-to-End Training of Multi-Document Reader and Retriever for
    Open-Domain Question Answering". Atlas sums over passages at every token and takes the mean over
    all tokens of the batch; it also divides the generator's logits by 0.01 before the softmax,
    which whoever computes `log_probs` has to do.

    Args:
        scores: Of the retriever, `[b, k]`.
        log_probs: Of the target's tokens given each passage; no gradient reaches them, `[b, k, t]`.
        mask: True at tokens of the target, `[b, t]`.
        temperature: Of the prior. The paper takes the square root of the vectors' dimension, Atlas
            a hundredth of it.
        as_atlas: Per token, as Atlas has it.

    Returns:
        Nats an answer, mean over questions; under `as_atlas` nats a token.
    """
    kept = _askable(scores, mask)
    prior, told = _prior(scores, temperature), log_probs.detach()
    if not as_atlas:
        return mean_where(-log_likelihood(prior, told, mask, fusion="sequence"), kept)
    steps = torch.logsumexp(prior[..., None] + exact(told), dim=1)
    return mean_where(-steps, mask & kept[:, None])


def perplexity_distillation(
    scores: Tensor,
    log_probs: Tensor,
    mask: Tensor,
    *,
    alignment: Alignment = Alignment(),
) -> Tensor:
    """PDist: the prior is drawn to the passages under which the target is least surprising.

        worth_k = (1 / t) sum_t log p(y_t | x, d_k, y_<t)

    Use it as the first choice for training a retriever with a fixed or a moving generator: it needs
    one scoring pass and no attention maps, and measured as well as any in the paper.

    Args:
        scores: Of the retriever, `[b, k]`.
        log_probs: Of the target's tokens given each passage alone; no gradient reaches them,
            `[b, k, t]`.
        mask: True at tokens of the target, `[b, t]`.
        alignment: Temperatures and reduction.

    Returns:
        The mean divergence, in nats.

    Example:
        >>> log_probs = torch.tensor([[[0.9], [0.1]]]).log()
        >>> even = Alignment(score_temperature=1.0, target_temperature=1.0)
        >>> target = torch.tensor([[True]])
        >>> loss = perplexity_distillation(
        ...     log_probs[..., 0], log_probs, target, alignment=even)
        >>> abs(loss.item()) < 1e-6  # the prior is the target already
        True
    """
    return _drawn_to(scores, _mean_log_prob(log_probs, mask), mask.any(-1), alignment)


def leave_one_out(
    scores: Tensor,
    log_probs_without: Tensor,
    mask: Tensor,
    *,
    alignment: Alignment = Alignment(),
) -> Tensor:
    """LOOP: the prior is drawn to the passages that the generator misses when they are gone.

        worth_k = -(1 / t) sum_t log p(y_t | x, all d but d_k, y_<t)

    Use it where passages complement each other, so that none explains the answer alone. It costs k
    passes of the generator; over a sum of single passages it costs none (`without_each`).

    Args:
        scores: Of the retriever, `[b, k]`.
        log_probs_without: Of the target's tokens given all passages but one; no gradient reaches
            them, `[b, k, t]`.
        mask: True at tokens of the target, `[b, t]`.
        alignment: Temperatures and reduction.

    Returns:
        The mean divergence, in nats.
    """
    return _drawn_to(scores, -_mean_log_prob(log_probs_without, mask), mask.any(-1), alignment)


def without_each(
    log_weights: Tensor, log_probs: Tensor, mask: Tensor, *, fusion: Fusion = "sequence"
) -> Tensor:
    """Log p of the target's tokens under the sum without each passage in turn, no pass needed.

    The weights of the others are divided by their sum, and, under RAG-Sequence, move to their own
    posterior from token to token. A passage that is the only one stays.

    Args:
        log_weights: log prior, `[b, k]`.
        log_probs: Of the target's tokens given each passage, `[b, k, t]`.
        mask: True at tokens of the target, `[b, t]`.
        fusion: `sequence` or `token`.

    Returns:
        One row for each passage left out, what `leave_one_out` takes, `[b, k, t]`.
    """
    b, k, t = log_probs.shape
    left_out = torch.eye(k, dtype=torch.bool, device=log_weights.device)
    others = log_weights.clamp_min(2 * LEAST_LOG)[:, None, :].masked_fill(left_out, LEAST_LOG)
    others = others.log_softmax(-1).view(b * k, k)
    told = exact(log_probs).masked_fill(~mask[:, None, :], 0.0).repeat_interleave(k, dim=0)
    steps = step_weights(others, told, fusion=fusion) + told  # [b * k without, k, t]
    return torch.logsumexp(steps, dim=1).view(b, k, t)


def attention_distillation(
    scores: Tensor, worth: Tensor, *, alignment: Alignment = Alignment()
) -> Tensor:
    """ADist: the prior is drawn to the passages that a Fusion-in-Decoder generator attended to.

    Use it with Fusion-in-Decoder, where attention is a by-product. Do not use it before that
    generator answers well: an untrained one attends to anything.

    Source: Izacard and Grave, 2021, "Distilling Knowledge from Reader to Retriever for Question
    Answering".

    Args:
        scores: Of the retriever, `[b, k]`.
        worth: Attention that each passage drew, mostly of `attention_worth`; no gradient reaches
            it, `[b, k]`.
        alignment: Temperatures and reduction.

    Returns:
        The mean divergence, in nats.
    """
    everywhere = torch.ones(len(scores), dtype=torch.bool, device=scores.device)
    return _drawn_to(scores, worth, everywhere, alignment)


def attention_worth(
    attention: Tensor,
    norms: Tensor,
    mask: Tensor,
    tokens: Tensor,
    *,
    divisor: float = 256.0,
) -> Tensor:
    """Attention times the length of the values it fetched, which is what reached the decoder.

        worth_k = sum over layers, t, p of mean over heads (a v) / (divisor * layers * t)

    Args:
        attention: Probabilities of the decoder's attention to all passages,
            `[layers, b, heads, t, k, p]`.
        norms: Euclidean lengths of the values, `[layers, b, heads, k, p]`.
        mask: True at tokens of the target, `[b, t]`.
        tokens: True at tokens of passages, `[b, k, p]`.
        divisor: Atlas has 256 whatever the length of a passage; its temperature goes with it.

    Returns:
        `[b, k]`.
    """
    layers, _, heads = attention.shape[:3]
    kept_norms = exact(norms) * tokens[None, :, None]
    summed = torch.einsum(
        "lbhtkp,lbhkp,bt->bk", exact(attention), kept_norms, mask.to(kept_norms.dtype)
    )
    return summed / (divisor * layers * heads * mask.sum(-1, keepdim=True).clamp_min(1))


def _drawn_to(scores: Tensor, worth: Tensor, asked: Tensor, alignment: Alignment) -> Tensor:
    """`KL(softmax(worth / T) || softmax(scores / sqrt(d) / T'))`, the mean over what counts."""
    there = present(scores)
    scale = math.sqrt(alignment.dimension) * alignment.score_temperature
    told = safe_log_softmax(exact(scores) / scale, there)
    bounded = worth.detach().clamp(LEAST_LOG, -LEAST_LOG) / alignment.target_temperature
    target = safe_log_softmax(bounded, there).exp() * there
    loss = mean_where(divergence(target, told), asked & there.any(-1))
    return loss / scores.shape[1] if alignment.as_atlas else loss


def _mean_log_prob(log_probs: Tensor, mask: Tensor) -> Tensor:
    """The mean over the target's tokens, `[b, k, t]` to `[b, k]`."""
    summed = exact(log_probs.detach()).masked_fill(~mask[:, None, :], 0.0).sum(-1)
    return summed / mask.sum(-1, keepdim=True).clamp_min(1)


def _prior(scores: Tensor, temperature: float | Tensor) -> Tensor:
    """`log p(d | x)`, finite also where there is no passage, `[b, k]`."""
    empty = ~present(scores).any(-1, keepdim=True)
    return log_prior(scores.masked_fill(empty, 0.0), temperature).clamp_min(LEAST_LOG)


def _askable(scores: Tensor, mask: Tensor) -> Tensor:
    """Questions that have a passage and a target, `[b]`."""
    return present(scores).any(-1) & mask.any(-1)
