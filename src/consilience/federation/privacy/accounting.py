"""What noise costs: from the steps of a run to epsilon, and from a budget to the noise it needs.

A step is the Gaussian mechanism on a Poisson sample: every record is in it with probability q, the
sum of the records' vectors, none longer than C, gets noise of deviation z C in every coordinate.
Data sets are neighbours when one has a record more than the other. Composed by privacy loss
distributions, which are nearly exact where Rényi divergences are a third too high (measured in the
decision record).

Knows no data, no model and no file.

Sources: Abadi et al., 2016, "Deep Learning with Differential Privacy" (the mechanism); Koskela et
al., 2020, "Computing Tight Differential Privacy Guarantees Using FFT", and Doroshenko et al., 2022,
"Connect the Dots: Tighter Discrete Approximations of Privacy Loss Distributions" (the accountant).
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from consilience.errors import DependencyError, UsageError

LEAST_NOISE, MOST_NOISE = 0.3, 1000.0
"""Less than the first is hardly noise: a budget that would allow it gets the first."""

_CLOSE = 0.005
"""How near to the least sufficient noise is near enough, as a share of it."""

_INTERVAL = 5e-4
"""Of the privacy loss. Epsilon is rounded up: by 0.1 % after 14,000 steps, and not seen at 100."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Steps that are alike.

    Attributes:
        sampling: q, the probability with which a record is in a step.
        noise: z, the deviation of the noise over the longest vector of a record.
        count: How many.
    """

    sampling: float
    noise: float
    count: int


def epsilon_of(steps: Iterable[Steps], *, delta: float) -> float:
    """The epsilon of all steps together.

    Args:
        steps: In any order.
        delta: Between 0 and 1.

    Raises:
        DependencyError: dp-accounting is not installed.
    """
    return _composed(_alike(steps), delta)


def _alike(steps: Iterable[Steps]) -> tuple[Steps, ...]:
    """Composing 100 equal steps at once is 100 times cheaper than one after another."""
    found: Counter[tuple[float, float]] = Counter()
    for one in steps:
        found[one.sampling, one.noise] += one.count
    return tuple(Steps(*kind, count) for kind, count in sorted(found.items()))


@lru_cache(maxsize=256)  # a second of work, asked for a run, for a party, and again next round
def _composed(steps: tuple[Steps, ...], delta: float) -> float:
    accountant_of, events = _packages()
    accountant = accountant_of(value_discretization_interval=_INTERVAL)
    for one in steps:
        gaussian = events.GaussianDpEvent(one.noise)
        accountant.compose(events.PoissonSampledDpEvent(one.sampling, gaussian), one.count)
    return float(accountant.get_epsilon(delta))


def noise_for(*, epsilon: float, delta: float, sampling: float, count: int) -> float:
    """The least noise multiplier z with which a run stays within its budget, found by bisection.

    Args:
        epsilon: Of the whole run.
        delta: Of the whole run.
        sampling: q.
        count: Steps of the whole run.

    Returns:
        Enough for certain, and at most half a percent more than needed, or `LEAST_NOISE`.

    Raises:
        UsageError: No noise up to `MOST_NOISE` is enough.
        DependencyError: dp-accounting is not installed.
    """

    def enough(noise: float) -> bool:
        return epsilon_of([Steps(sampling, noise, count)], delta=delta) <= epsilon

    low, high = _bracket(enough)
    if high > MOST_NOISE:
        raise UsageError(
            f"a budget of epsilon {epsilon:g} at delta {delta:.1e} is not enough for {count} steps "
            f"that each see {sampling:.1%} of the records",
            hint="raise privacy.epsilon, or take fewer rounds, fewer steps or a smaller batch",
        )
    while high - low > _CLOSE * high:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _bracket(enough: Callable[[float], bool]) -> tuple[float, float]:
    """Noise that is too little, and noise that is enough or more than `MOST_NOISE`."""
    low, high = LEAST_NOISE, 1.0
    while not enough(high) and high <= MOST_NOISE:
        low, high = high, high * 2
    if high == 1.0 and enough(LEAST_NOISE):
        return LEAST_NOISE, LEAST_NOISE
    return low, high


def coarse(records: int) -> int:
    """The number of records as it is told: rounded up to four binary digits.

    Noise, epsilon and the weight of a party in the mean all follow from this number, so that they
    tell the size of a party to an eighth and no more. It is taken to be public.

    Example:
        >>> coarse(7), coarse(100), coarse(1000)
        (7, 104, 1024)
    """
    step = 1 << max(0, records.bit_length() - 4)
    return -(-records // step) * step


def delta_of(records: int, delta: float | None) -> float:
    """The delta of a run: the one that is set, or `records ** -1.1`.

    Args:
        records: As `coarse` told them.
        delta: As it is set.

    Raises:
        UsageError: It would allow to give a whole record away.
    """
    found = records**-1.1 if delta is None else delta
    if not 0 < found < 1 / records:
        raise UsageError(
            f"delta {found:.1e} with about {records} records would allow one of them to be told "
            "outright",
            hint=f"set privacy.delta below {1 / records:.1e}, or bring more records",
        )
    return found


def _packages() -> tuple[Any, Any]:
    try:
        import dp_accounting  # type: ignore[import-untyped]
        from dp_accounting.pld import PLDAccountant  # type: ignore[import-untyped]
    except ImportError as error:
        raise DependencyError(
            "privacy needs the package dp-accounting", hint="pip install 'consilience[federation]'"
        ) from error
    return PLDAccountant, dp_accounting
