"""How far a confidence can be believed: calibration error, Brier score, AUROC, risk and coverage.

All take the confidence of each answer and whether it was right. Answers of equal confidence are
never told apart: they share a bin, a rank and a step of the curve, so that no figure depends on the
order of the questions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consilience.evaluation.statistic import Statistic, Values, Weights, plain, ratio

BINS = 15


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of similar confidence.

    Attributes:
        confidence: Their mean confidence, from 0 to 1.
        correct: The share of them that is right.
        count: How many they are.
    """

    confidence: float
    correct: float
    count: int


@dataclass(frozen=True, slots=True)
class Point:
    """What remains when only answers of at least some confidence are given.

    Attributes:
        threshold: That confidence.
        coverage: The share of answers that are given.
        risk: The share of these that is wrong.
    """

    threshold: float
    coverage: float
    risk: float


def expected_calibration_error(
    confidence: Sequence[float], correct: Sequence[bool], *, bins: int = BINS
) -> float:
    """`sum over bins of (bin's share) * |mean confidence - share right|`.

    The bins hold equally many answers (Nguyen and O'Connor, 2015), since bins of equal width leave
    most of a confident model's answers in one. 0 is best.

    Args:
        confidence: From 0 to 1, `[answers]`.
        correct: Whether each is right, `[answers]`.
        bins: How many bins; answers of equal confidence stay together, so they may be fewer.
    """
    return plain(calibration_error_statistic(confidence, correct, bins=bins), len(confidence))


def reliability(
    confidence: Sequence[float], correct: Sequence[bool], *, bins: int = BINS
) -> list[Bin]:
    """The bins of `expected_calibration_error`, the least confident first."""
    levels = _Levels.of(confidence, correct)
    mass, right = levels.masses(np.ones((1, len(confidence))))
    numbers = _bin_numbers(mass, bins)[0]
    found = []
    for number in np.unique(numbers):
        inside = numbers == number
        count = float(mass[0][inside].sum())
        sure = float(mass[0][inside] @ levels.confidence[inside])
        found.append(Bin(sure / count, float(right[0][inside].sum()) / count, round(count)))
    return found


def brier(confidence: Sequence[float], correct: Sequence[bool]) -> float:
    """The mean of `(confidence - right)^2` (Brier, 1950), right being 0 or 1. 0 is best."""
    errors = (np.asarray(confidence, float) - np.asarray(correct, float)) ** 2
    return float(errors.mean())


def auroc(confidence: Sequence[float], correct: Sequence[bool]) -> float:
    """The chance that a right answer is more confident than a wrong one; a tie counts half.

    The area under the receiver operating characteristic. NaN when all are right or all wrong.
    """
    return plain(auroc_statistic(confidence, correct), len(confidence))


def risk_coverage(confidence: Sequence[float], correct: Sequence[bool]) -> list[Point]:
    """The curve of risk over coverage as the threshold falls (El-Yaniv and Wiener, 2010)."""
    levels = _Levels.of(confidence, correct)
    mass, right = levels.masses(np.ones((1, len(confidence))))
    covered, good = mass[0][::-1].cumsum(), right[0][::-1].cumsum()
    rows = zip(levels.confidence[::-1], covered, good, strict=True)
    return [Point(float(t), float(c / len(confidence)), float(1 - g / c)) for t, c, g in rows]


def aurc(confidence: Sequence[float], correct: Sequence[bool]) -> float:
    """The area under `risk_coverage`: the mean of the risk over all coverages.

    `AURC = 1/n sum over i of risk(the i most confident)` (Geifman and El-Yaniv, 2017), each answer
    bringing in with it all that are as confident. 0 is best; the share of wrong answers is what a
    confidence without meaning gets.
    """
    return plain(aurc_statistic(confidence, correct), len(confidence))


def calibration_error_statistic(
    confidence: Sequence[float], correct: Sequence[bool], *, bins: int = BINS
) -> Statistic:
    """`expected_calibration_error` of weighted answers."""
    levels = _Levels.of(confidence, correct)

    def statistic(weights: Weights) -> Values:
        mass, right = levels.masses(weights)
        gaps, numbers = mass * levels.confidence - right, _bin_numbers(mass, bins)
        inside = (np.where(numbers == each, gaps, 0.0).sum(1) for each in range(bins))
        return ratio(sum(np.abs(gap) for gap in inside), mass.sum(1))

    return statistic


def auroc_statistic(confidence: Sequence[float], correct: Sequence[bool]) -> Statistic:
    """`auroc` of weighted answers."""
    levels = _Levels.of(confidence, correct)

    def statistic(weights: Weights) -> Values:
        mass, right = levels.masses(weights)
        wrong = mass - right
        below = wrong.cumsum(1) - wrong / 2
        return ratio((right * below).sum(1), right.sum(1) * wrong.sum(1))

    return statistic


def aurc_statistic(confidence: Sequence[float], correct: Sequence[bool]) -> Statistic:
    """`aurc` of weighted answers."""
    levels = _Levels.of(confidence, correct)

    def statistic(weights: Weights) -> Values:
        mass, right = (each[:, ::-1] for each in levels.masses(weights))
        risk = ratio((mass - right).cumsum(1), mass.cumsum(1))
        return ratio((mass * np.nan_to_num(risk)).sum(1), mass.sum(1))

    return statistic


@dataclass(frozen=True, slots=True)
class _Levels:
    """Answers gathered by confidence.

    Attributes:
        confidence: The confidences that occur, ascending, `[levels]`.
        masses: From weights `[resamples, answers]` to the weight at each level, and the part of it
            that is right, both `[resamples, levels]`.
    """

    confidence: NDArray[np.float64]
    masses: Callable[[Weights], tuple[Weights, Weights]]

    @classmethod
    def of(cls, confidence: Sequence[float], correct: Sequence[bool]) -> "_Levels":
        given, right = np.asarray(confidence, float), np.asarray(correct, float)
        order = np.argsort(given, kind="stable")
        levels, starts = np.unique(given[order], return_index=True)

        def masses(weights: Weights) -> tuple[Weights, Weights]:
            sorted_weights = weights[:, order]
            good = np.add.reduceat(sorted_weights * right[order], starts, axis=1)
            return np.add.reduceat(sorted_weights, starts, axis=1), good

        return cls(levels, masses)


def _bin_numbers(mass: Weights, bins: int) -> NDArray[np.int64]:
    """The bin of each level, `[resamples, levels]`: where the middle of its mass falls."""
    middle = ratio(mass.cumsum(1) - mass / 2, mass.sum(1, keepdims=True))
    return np.minimum((np.nan_to_num(middle) * bins).astype(np.int64), bins - 1)
