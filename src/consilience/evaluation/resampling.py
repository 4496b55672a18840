"""How sure a figure is: bootstrap intervals, and whether two runs differ by more than chance.

The unit is the question: questions are drawn anew with repetition (Efron, 1979), or exchanged
between two runs. Everything is seeded, so the same questions give the same intervals. Knows
statistics of weights and nothing of what they measure.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from consilience.errors import UsageError
from consilience.evaluation.statistic import Statistic, Values, Weights

_CELLS = 2_000_000  # weights held at a time: 16 MB


@dataclass(frozen=True, slots=True)
class Resampling:
    """How resampling is done.

    Attributes:
        resamples: How many times, at least 1.
        seed: Where chance begins.
        level: The share of resamples that an interval holds, between 0 and 1.
    """

    resamples: int = 1000
    seed: int = 0
    level: float = 0.95

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise UsageError(
                f"resamples must be at least 1, received {self.resamples}",
                hint="leave resamples out: 1000",
            )
        if not 0 < self.level < 1:
            raise UsageError(
                f"level must lie between 0 and 1, received {self.level}",
                hint="leave level out: 0.95",
            )


@dataclass(frozen=True, slots=True)
class Interval:
    """Between which values a figure lies in the wanted share of resamples."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of two runs over the same questions.

    Attributes:
        a: The figure of the first run.
        b: The figure of the second.
        difference: `b - a`.
        interval: Of the difference, by the paired bootstrap; None when no resample defines it.
        p_bootstrap: How often a resample strays from the difference at least as far as zero lies
            from it (Efron and Tibshirani, 1993): two-sided.
        p_randomisation: How often exchanging the two runs at random, question by question, gives
            at least this difference (Noreen, 1989; Yeh, 2000): two-sided.
    """

    a: float
    b: float
    difference: float
    interval: Interval | None
    p_bootstrap: float
    p_randomisation: float


def intervals(
    statistics: Mapping[str, Statistic], questions: int, how: Resampling
) -> dict[str, Interval]:
    """Percentile intervals of several figures over the same resamples.

    Args:
        statistics: The figures, by name.
        questions: How many questions there are, at least 1.
        how: How resampling is done.

    Returns:
        An interval for every figure that some resample defines.
    """
    drawn: dict[str, list[Values]] = {name: [] for name in statistics}
    for weights in bootstrap_weights(questions, how):
        for name, statistic in statistics.items():
            drawn[name].append(statistic(weights))
    found = {name: _percentiles(np.concatenate(parts), how) for name, parts in drawn.items()}
    return {name: interval for name, interval in found.items() if interval is not None}


def differences(
    statistics: Mapping[str, Statistic], questions: int, how: Resampling
) -> dict[str, Difference]:
    """Figures of two runs with the significance of what lies between them.

    Args:
        statistics: The figures, by name, over the questions of the first run followed by the same
            questions of the second: weights are `[resamples, 2 * questions]`.
        questions: How many questions each run has.
        how: How resampling is done.

    Returns:
        A difference for every figure that both runs define.
    """
    first, second = (_as_run(np.ones((1, questions)), second=number) for number in (False, True))
    plain = {
        name: (float(one(first)[0]), float(one(second)[0])) for name, one in statistics.items()
    }
    known = {name: one for name, one in statistics.items() if not np.isnan(plain[name]).any()}
    drawn = _gaps(known, map(_both_runs, bootstrap_weights(questions, how)))
    mixed = _gaps(known, _exchanged(questions, how))
    return {name: _difference(*plain[name], drawn[name], mixed[name], how) for name in known}


def bootstrap_weights(questions: int, how: Resampling) -> Iterator[Weights]:
    """How often each question is drawn, in batches `[resamples, questions]`."""
    random = np.random.default_rng(how.seed)
    for rows in _batches(questions, how.resamples):
        drawn = random.integers(questions, size=(rows, questions))
        cells = drawn + questions * np.arange(rows)[:, None]
        counts = np.bincount(cells.ravel(), minlength=rows * questions)
        yield counts.reshape(rows, questions).astype(float)


Pairs = Iterator[tuple[Weights, Weights]]
"""Weights of the first and of the second of two things to compare."""


def _exchanged(questions: int, how: Resampling) -> Pairs:
    """Both runs with about half of their questions exchanged."""
    random = np.random.default_rng(how.seed)
    for rows in _batches(questions, how.resamples):
        kept = random.integers(2, size=(rows, questions)).astype(float)
        yield np.hstack([kept, 1 - kept]), np.hstack([1 - kept, kept])


def _both_runs(weights: Weights) -> tuple[Weights, Weights]:
    return _as_run(weights, second=False), _as_run(weights, second=True)


def _as_run(weights: Weights, *, second: bool) -> Weights:
    """Weights of one run's questions as weights over both runs'."""
    nothing = np.zeros_like(weights)
    return np.hstack([nothing, weights] if second else [weights, nothing])


def _gaps(statistics: Mapping[str, Statistic], pairs: Pairs) -> dict[str, Values]:
    """Second minus first, `[resamples]`, of every figure."""
    found: dict[str, list[Values]] = {name: [] for name in statistics}
    for first, second in pairs:
        for name, statistic in statistics.items():
            found[name].append(statistic(second) - statistic(first))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _difference(a: float, b: float, drawn: Values, mixed: Values, how: Resampling) -> Difference:
    gap = b - a
    return Difference(
        a=a,
        b=b,
        difference=gap,
        interval=_percentiles(drawn, how),
        p_bootstrap=_share_beyond(drawn - gap, gap),
        p_randomisation=_share_beyond(mixed, gap),
    )


def _share_beyond(drawn: Values, gap: float) -> float:
    """The share at least as far from zero as `gap`, which counts as one of the draws itself."""
    known = drawn[~np.isnan(drawn)]
    beyond = int((np.abs(known) >= abs(gap) - 1e-12).sum())
    return (beyond + 1) / (len(known) + 1)


def _percentiles(drawn: Values, how: Resampling) -> Interval | None:
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return None
    outside = (1 - how.level) / 2
    low, high = np.quantile(known, [outside, 1 - outside])
    return Interval(float(low), float(high))


def _batches(questions: int, resamples: int) -> Iterator[int]:
    """Numbers of resamples that add up to all and are small enough to hold at once."""
    most = max(1, _CELLS // questions)
    for start in range(0, resamples, most):
        yield min(most, resamples - start)
