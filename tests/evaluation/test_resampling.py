"""Against exact enumeration where it is possible, else against theory with a wide margin."""

from itertools import product

import numpy as np
import pytest

from consilience.errors import UsageError
from consilience.evaluation.resampling import (
    Difference,
    Interval,
    Resampling,
    bootstrap_weights,
    differences,
    intervals,
)
from consilience.evaluation.statistic import Statistic, mean, plain


def two_runs(a: list[float], b: list[float]) -> dict[str, Statistic]:
    return {"f1": mean(a + b)}


def test_weights_are_how_often_each_question_is_drawn() -> None:
    weights = np.concatenate(list(bootstrap_weights(7, Resampling(resamples=500))))
    assert weights.shape == (500, 7)
    assert (weights.sum(1) == 7).all()
    assert (weights >= 0).all()
    assert weights.mean(0) == pytest.approx(np.ones(7), abs=0.2)


def test_large_runs_come_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consilience.evaluation.resampling._CELLS", 20)
    batches = [len(one) for one in bootstrap_weights(6, Resampling(resamples=10))]
    assert batches == [3, 3, 3, 1]


def test_an_interval_is_that_of_all_resamples() -> None:
    values = [0.0, 0.0, 1.0, 1.0, 1.0]
    every = [sum(values[i] for i in drawn) / 5 for drawn in product(range(5), repeat=5)]
    low, high = np.quantile(every, [0.05, 0.95])
    how = Resampling(resamples=20_000, level=0.9)
    found = intervals({"em": mean(values)}, 5, how)["em"]
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


def test_the_interval_of_a_mean_is_about_two_standard_errors() -> None:
    values = np.random.default_rng(1).normal(size=400)
    found = intervals({"x": mean(list(values))}, 400, Resampling(resamples=4000))["x"]
    error = 1.96 * values.std() / 20
    assert (found.low, found.high) == pytest.approx(
        (values.mean() - error, values.mean() + error), abs=0.1 * error
    )


def test_the_seed_decides() -> None:
    statistics = {"x": mean([0.1, 0.5, 0.9, 0.3])}
    first, same = (intervals(statistics, 4, Resampling(resamples=50)) for _ in range(2))
    other = intervals(statistics, 4, Resampling(resamples=50, seed=7))
    assert first == same != other


def test_what_no_resample_defines_has_no_interval() -> None:
    assert intervals({"x": mean([float("nan")] * 3)}, 3, Resampling(resamples=5)) == {}


def test_a_mean_is_over_those_that_have_a_value() -> None:
    assert plain(mean([1.0, float("nan"), 0.0]), 3) == 0.5


def test_equal_runs_do_not_differ() -> None:
    found = differences(two_runs([0.0, 1.0, 0.5], [0.0, 1.0, 0.5]), 3, Resampling(resamples=99))
    assert found["f1"] == Difference(0.5, 0.5, 0.0, Interval(0.0, 0.0), 1.0, 1.0)


def test_randomisation_is_that_of_all_exchanges() -> None:
    a, b = [0.1, 0.4, 0.0, 0.2, 0.9, 0.3], [0.5, 0.9, 0.3, 0.1, 1.0, 0.8]
    gaps = np.subtract(b, a)
    every = [abs(np.dot(signs, gaps)) / 6 for signs in product([-1, 1], repeat=6)]
    exact = np.mean([one >= gaps.mean() - 1e-12 for one in every])
    found = differences(two_runs(a, b), 6, Resampling(resamples=40_000))["f1"]
    assert found.difference == pytest.approx(gaps.mean())
    assert found.p_randomisation == pytest.approx(exact, abs=0.01)


def test_the_paired_bootstrap_is_that_of_all_resamples() -> None:
    a, b = [0.1, 0.4, 0.0, 0.2, 0.9], [0.5, 0.9, 0.3, 0.1, 1.0]
    gaps = np.subtract(b, a)
    every = np.array([gaps[list(drawn)].mean() for drawn in product(range(5), repeat=5)])
    exact = np.mean(np.abs(every - gaps.mean()) >= gaps.mean() - 1e-12)
    found = differences(two_runs(a, b), 5, Resampling(resamples=40_000))["f1"]
    assert found.p_bootstrap == pytest.approx(exact, abs=0.01)
    low, high = np.quantile(every, [0.025, 0.975])
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high), abs=0.01)


def test_exchanging_the_runs_turns_the_difference_round() -> None:
    a, b = [0.0, 0.2, 0.1, 0.3], [0.9, 0.8, 1.0, 0.2]
    there = differences(two_runs(a, b), 4, Resampling())["f1"]
    back = differences(two_runs(b, a), 4, Resampling())["f1"]
    assert back.difference == -there.difference
    assert back.p_randomisation == there.p_randomisation


def test_of_runs_that_are_alike_few_seem_to_differ() -> None:
    random = np.random.default_rng(3)
    pairs = [(random.random(30), random.random(30)) for _ in range(200)]
    how = Resampling(resamples=200)
    values = [
        differences(two_runs(list(a), list(b)), 30, how)["f1"].p_randomisation for a, b in pairs
    ]
    assert 0.01 <= np.mean(np.array(values) <= 0.05) <= 0.10


def test_a_metric_that_one_run_lacks_is_left_out() -> None:
    assert differences(two_runs([0.5], [float("nan")]), 1, Resampling(resamples=5)) == {}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"resamples": 0}, "resamples must be at least 1, received 0"),
        ({"level": 1.0}, "level must lie between 0 and 1, received 1.0"),
    ],
)
def test_impossible_resampling_is_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Resampling(**wrong)  # type: ignore[arg-type]
