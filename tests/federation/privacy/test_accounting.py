import math
import sys

import pytest

from consilience.errors import DependencyError, UsageError
from consilience.federation.privacy import accounting
from consilience.federation.privacy.accounting import (
    LEAST_NOISE,
    Steps,
    coarse,
    delta_of,
    epsilon_of,
    noise_for,
)

MNIST = 256 / 60_000


def epochs(count: int) -> int:
    return round(count * 60_000 / 256)


def normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def delta_without_sampling(epsilon: float, noise: float) -> float:
    """Balle and Wang, 2018, theorem 8: exact for the Gaussian mechanism of sensitivity 1."""
    half, moved = 1 / (2 * noise), epsilon * noise
    return normal_cdf(half - moved) - math.exp(epsilon) * normal_cdf(-half - moved)


def delta_of_one_step(epsilon: float, sampling: float, noise: float) -> float:
    """The hockey-stick divergence of `(1 - q) N(0, z) + q N(1, z)` and `N(0, z)`, both ways.

    Both likelihood ratios are monotone, so each divergence is a difference of two tails.
    """

    def where(ratio: float) -> float:
        """x at which the mixture is `ratio` times the normal."""
        return noise**2 * math.log((ratio - 1 + sampling) / sampling) + 0.5

    def tails(x: float) -> tuple[float, float]:
        """Mass above x of the mixture and of the normal."""
        without, moved = normal_cdf(-x / noise), normal_cdf((1 - x) / noise)
        return (1 - sampling) * without + sampling * moved, without

    mixture, plain = tails(where(math.exp(epsilon)))
    removed = mixture - math.exp(epsilon) * plain
    if math.exp(-epsilon) <= 1 - sampling:
        return removed
    mixture, plain = tails(where(math.exp(-epsilon)))
    return max(removed, (1 - plain) - math.exp(epsilon) * (1 - mixture))


@pytest.mark.parametrize(("noise", "count", "published"), [(1.3, 20, 1.34), (0.7, 70, 8.68)])
def test_published_values_of_the_moments_accountant_are_upper_bounds(
    noise: float, count: int, published: float
) -> None:
    """Bu et al., 2020, "Deep Learning with Gaussian Differential Privacy", figure 4: MNIST,
    batches of 256 in 60,000, delta 1e-5."""
    found = epsilon_of([Steps(MNIST, noise, epochs(count))], delta=1e-5)
    assert 0.7 * published < found < 0.85 * published


@pytest.mark.parametrize(("noise", "count", "published"), [(1.06, 20, 1.34), (0.638, 70, 8.68)])
def test_published_values_of_the_central_limit_are_near_from_below(
    noise: float, count: int, published: float
) -> None:
    """The same figure: by their central limit theorem, which leaves the last terms out."""
    found = epsilon_of([Steps(MNIST, noise, epochs(count))], delta=1e-5)
    assert published < found < 1.1 * published


@pytest.mark.parametrize(("noise", "rounds"), [(1.34, 5), (2.68, 20), (4.24, 50)])
def test_without_sampling_it_is_the_exact_formula(noise: float, rounds: int) -> None:
    """And 8.0, as other accountants of the Gaussian mechanism have it."""
    found = epsilon_of([Steps(1.0, noise, rounds)], delta=1e-5)
    assert found == pytest.approx(8.0, abs=0.05)
    assert delta_without_sampling(found, noise / math.sqrt(rounds)) == pytest.approx(1e-5, rel=0.02)


@pytest.mark.parametrize(("sampling", "noise"), [(0.01, 0.6), (0.25, 0.8), (0.5, 2.0)])
def test_one_sampled_step_is_the_exact_formula(sampling: float, noise: float) -> None:
    found = epsilon_of([Steps(sampling, noise, 1)], delta=1e-4)
    assert found > 0.01
    assert delta_of_one_step(found, sampling, noise) == pytest.approx(1e-4, rel=0.02)


def test_steps_add_up_in_any_order_and_unlike_ones_too() -> None:
    one, other = Steps(0.1, 2.0, 3), Steps(0.1, 2.0, 2)
    assert epsilon_of([one, other], delta=1e-5) == epsilon_of([Steps(0.1, 2.0, 5)], delta=1e-5)
    unlike = [one, Steps(0.3, 3.0, 4)]
    both = epsilon_of(unlike, delta=1e-5)
    assert both == epsilon_of(unlike[::-1], delta=1e-5)
    assert both > epsilon_of([one], delta=1e-5)


def test_the_noise_found_is_the_least_that_is_enough() -> None:
    sampling, count, delta = 0.25, 12, 1e-3
    found = noise_for(epsilon=3.0, delta=delta, sampling=sampling, count=count)
    assert 1.0 < found < 2.0
    assert epsilon_of([Steps(sampling, found, count)], delta=delta) <= 3.0
    assert epsilon_of([Steps(sampling, found * 0.99, count)], delta=delta) > 3.0


def test_a_large_budget_gets_noise_all_the_same() -> None:
    assert noise_for(epsilon=1e6, delta=0.01, sampling=0.1, count=1) == LEAST_NOISE


def test_a_budget_that_no_noise_is_enough_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounting, "MOST_NOISE", 4.0)
    with pytest.raises(
        UsageError, match=r"epsilon 0\.5 at delta 1\.0e-05 is not enough for 9 steps"
    ):
        noise_for(epsilon=0.5, delta=1e-5, sampling=1.0, count=9)


def test_the_number_of_records_is_told_to_an_eighth() -> None:
    for records in range(1, 5000):
        told = coarse(records)
        assert records <= told < records * 1.125
    assert len({coarse(records) for records in range(512, 1024)}) == 9


def test_a_delta_that_gives_a_record_away_is_refused() -> None:
    assert delta_of(1000, None) == pytest.approx(5.01e-4, rel=1e-3)
    assert delta_of(1000, 1e-6) == 1e-6
    with pytest.raises(UsageError, match=r"delta 1.0e-03 with about 1000 records"):
        delta_of(1000, 1e-3)
    with pytest.raises(UsageError, match="about 1 records") as caught:
        delta_of(1, None)
    assert "bring more records" in caught.value.hint


def test_without_the_package_its_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(DependencyError) as caught:
        epsilon_of([Steps(0.123, 1.0, 1)], delta=1e-5)
    assert caught.value.hint == "pip install 'consilience[federation]'"
