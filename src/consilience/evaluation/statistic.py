"""Figures over many questions, in the one form that can be resampled: functions of weights.

A weight says how often a question counts. With ones a statistic is the plain figure; with the
counts of a resample it is the figure of that resample; with zeros and ones over two runs it is the
figure of a mixture of both. So every metric is written once, over `[resamples, questions]`, and
intervals and tests work for all of them, BLEU and AUROC included.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Weights = NDArray[np.float64]
"""How often each question counts, `[resamples, questions]`."""

Values = NDArray[np.float64]
"""One figure for each resample, `[resamples]`; NaN where none is defined."""

Statistic = Callable[[Weights], Values]


def plain(statistic: Statistic, questions: int) -> float:
    """The figure when every question counts once."""
    return float(statistic(np.ones((1, questions)))[0])


def ratio(above: ArrayLike, below: ArrayLike) -> Values:
    """`above / below`, NaN where `below` is zero."""
    above, below = np.broadcast_arrays(np.asarray(above, float), np.asarray(below, float))
    found: Values = np.full(above.shape, np.nan)
    np.divide(above, below, out=found, where=below != 0)
    return found


def mean(values: Sequence[float]) -> Statistic:
    """The mean over the questions for which there is a value, NaN standing for none.

    Args:
        values: `[questions]`.
    """
    given = np.asarray(values, float)
    defined = ~np.isnan(given)
    known = np.where(defined, given, 0.0)
    return lambda weights: ratio(weights @ known, weights @ defined.astype(float))
