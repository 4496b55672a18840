"""What a model says of its answers, fitted on answers of which it is known whether they were right.

The confidence: a logistic regression of right on the log odds of the support and on the mean log p
of a token, with the targets of Platt (1999, "Probabilistic Outputs for Support Vector Machines"),
which are a little off 0 and 1, so that answers that were all told apart do not make the confidence
boundless. Found by Newton's method (Bishop, 2006, "Pattern Recognition and Machine Learning",
section 4.3.3). A weight below zero would call an answer surer the less its passages support it;
whatever gets one is left out.

The least support: the one that tells questions with an answer from those without best, by the sum
of the two shares that are told rightly (Youden, 1950, "Index for Rating Diagnostic Tests").
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from consilience.errors import UsageError
from consilience.model.answer import Answer
from consilience.model.confidence import NEAR, Confidence, log_odds

STEPS = 100
ENOUGH = 1e-9
STIFF = 1e-6
"""Added to the curvature, so that a column without variance has a solution."""


@dataclass(frozen=True, slots=True)
class Judged:
    """An answer, and whether it was right.

    Attributes:
        support: p(there is an answer | x).
        log_likelihood: log p(y | x, there is an answer), in nats.
        tokens: Those that it is of, the end counted.
        right: Whether it answers the question; False for one that has no answer.
    """

    support: float
    log_likelihood: float
    tokens: int
    right: bool

    @classmethod
    def of(cls, answer: Answer, *, right: bool) -> Self:
        """An answer as it was given, or would have been given had it not been withheld."""
        # The end is one more; where the answer was cut before it, one in many makes no difference.
        tokens = len(answer.tokens) + 1
        return cls(answer.support, answer.log_likelihood or 0.0, tokens, right)


def fit_confidence(answers: Sequence[Judged]) -> Confidence:
    """The confidence that tells how many of such answers are right.

    Args:
        answers: With right ones and wrong ones among them.

    Raises:
        UsageError: All are right, or all are wrong.
    """
    right = np.array([one.right for one in answers], float)
    if not 0 < right.sum() < len(right):
        raise UsageError(
            f"{int(right.sum())} of {len(right)} answers are right, which tells nothing of the "
            "others",
            hint="fit a confidence on answers of which some are right and some are wrong",
        )
    columns = {
        "support": np.array([log_odds(one.support) for one in answers]),
        "likelihood": np.array([one.log_likelihood / one.tokens for one in answers]),
    }
    while columns:
        found = _regression(np.stack([np.ones(len(right)), *columns.values()], 1), right)
        weights = dict(zip(["bias", *columns], found.tolist(), strict=True))
        wrong = [name for name in columns if weights[name] < 0]
        if not wrong:
            return Confidence(**{"support": 0.0, **weights})
        del columns[min(wrong, key=lambda name: weights[name])]
    (bias,) = _regression(np.ones((len(right), 1)), right).tolist()
    return Confidence(bias, 0.0, 0.0)


def fit_threshold(answerable: Sequence[float], others: Sequence[float]) -> float:
    """The support from which on an answer is given, in thousandths.

    Of supports that tell them apart as well, but for less than a question of the rarer kind, it is
    the lowest: of a few questions no more is known, and a wrong answer is shown beside its source,
    while one that is withheld is not shown at all.

    Args:
        answerable: Supports of questions that have an answer, at least one.
        others: Supports of questions that have none, at least one.
    """

    def told_rightly(threshold: float) -> float:
        given = sum(one >= threshold for one in answerable) / len(answerable)
        withheld = sum(one < threshold for one in others) / len(others)
        return given + withheld

    worth = {one: told_rightly(one) for one in {*answerable, *others}}
    one_less = max(worth.values()) - 1 / min(len(answerable), len(others))
    lowest = min(one for one in worth if worth[one] > one_less + NEAR)
    # Rounded down: an answer that stood at the threshold is still given.
    return math.floor(1000 * lowest) / 1000


def _regression(inputs: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weights of the columns, `[answers, columns]` and `[answers]` to `[columns]`."""
    hits = right.sum()
    targets = np.where(right > 0, (hits + 1) / (hits + 2), 1 / (len(right) - hits + 2))
    weights = np.zeros(inputs.shape[1])
    for _ in range(STEPS):
        told = 1 / (1 + np.exp(-np.clip(inputs @ weights, -500, 500)))
        slope = inputs.T @ (targets - told)
        curvature = (inputs * (told * (1 - told))[:, None]).T @ inputs
        step = np.linalg.solve(curvature + STIFF * np.eye(len(weights)), slope)
        weights += step
        if np.abs(step).max() < ENOUGH:
            break
    return weights
