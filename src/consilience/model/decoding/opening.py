"""What stands before the first token: is there an answer at all, and in which passages?

A generator that can say "not in this passage" says it at the first step, for nothing. The share of
the prior whose passages did not say so is the *support* of there being an answer; answers are then
searched given that there is one, under the prior given the same.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from consilience.errors import UsageError
from consilience.generation import Generator, NextToken

IMPOSSIBLE = -1e9
"""Log weight of a passage that is not there: its exponential is zero, its sums stay finite."""

LEAST_SUPPORT = 1e-9
LEAST_LEFT = 1e-6
"""The share that always stays for an answer, so that one can be searched."""


@dataclass(frozen=True, slots=True)
class Opening:
    """Everything before the first token of `b` questions over `k` passages.

    Attributes:
        state: The generator's, at the start.
        first: The first token given that there is an answer, `[b * k, 1, v]`; the weight of
            "not here" is still there and must not be chosen.
        log_weights: log p(d | x, there is an answer), `[b, k]`.
        supports: p(there is an answer | x, d), `[b, k]`.
        support: p(there is an answer | x), `[b]`.
    """

    state: Any
    first: NextToken
    log_weights: Tensor
    supports: Tensor
    support: Tensor

    def each(self) -> list["Prospect"]:
        """What is known of every question by itself."""
        weights, supports = self.log_weights.cpu(), self.supports.cpu()
        return list(map(Prospect, weights, supports, self.support.tolist()))


@dataclass(frozen=True, slots=True)
class Prospect:
    """What is known of one question before its first token; tensors lie on the processor.

    Attributes:
        log_weights: log p(d | x, there is an answer), `[k]`.
        supports: p(there is an answer | x, d), `[k]`.
        support: p(there is an answer | x).
    """

    log_weights: Tensor
    supports: Tensor
    support: float


def open_answers(generator: Generator, memory: Any, log_weights: Tensor) -> Opening:
    """Begin to write, and ask every passage whether it holds an answer.

    Args:
        generator: Whose memory it is.
        memory: Of `b * k` rows, question-major.
        log_weights: log prior, `[b, k]`; minus infinity for a passage that is not there.

    Raises:
        UsageError: The weights are not `[b, k]`, are NaN, or leave a question without passages.
    """
    _check(log_weights)
    prior = log_weights.to(generator.device).float().clamp_min(IMPOSSIBLE)
    state, first, shares = begin(generator, memory)
    supports = shares.view(prior.shape)
    joint = prior + supports.clamp_min(LEAST_SUPPORT).log()
    support = (prior.exp() * supports).sum(-1)
    return Opening(state, first, joint.log_softmax(-1), supports, support)


def begin(generator: Generator, memory: Any) -> tuple[Any, NextToken, Tensor]:
    """The state at the start, the first token given an answer, and the support of each row."""
    state, first = generator.begin(memory)
    if generator.none is None:
        return state, first, torch.ones_like(first.totals[:, 0])
    left = first.totals - first.weights[..., generator.none]
    left = torch.maximum(left, LEAST_LEFT * first.totals)
    return state, NextToken(first.weights, left), (left / first.totals)[:, 0]


def _check(log_weights: Tensor) -> None:
    if log_weights.dim() != 2:
        raise UsageError(
            f"log weights must be [questions, passages], received {list(log_weights.shape)}",
            hint="give one log weight for each passage of each question",
        )
    wrong = log_weights.isnan().any(-1) | (log_weights == float("-inf")).all(-1)
    if bool(wrong.any()):
        row = int(torch.nonzero(wrong)[0])
        received = log_weights[row].tolist()
        raise UsageError(
            f"the log weights of question {row} are not a distribution: {received}",
            hint="leave a question without passages out of the batch; look for NaN in its scores",
        )
