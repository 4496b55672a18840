"""By hand, and against slow definitions written anew."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilience.evaluation import calibration
from consilience.evaluation.calibration import (
    aurc,
    auroc,
    brier,
    expected_calibration_error,
    reliability,
    risk_coverage,
)

SURE = [0.9, 0.8, 0.3, 0.2]
RIGHT = [True, False, True, False]

ANSWERS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.8, 1.0]), st.booleans()), min_size=1
)


def apart(answers: list[tuple[float, bool]]) -> tuple[list[float], list[bool]]:
    return [sure for sure, _ in answers], [right for _, right in answers]


def test_calibration_error_by_hand() -> None:
    # two bins of two: confidence 0.25 with half right, confidence 0.85 with half right
    error = expected_calibration_error(SURE, RIGHT, bins=2)
    assert error == pytest.approx(0.5 * 0.25 + 0.5 * 0.35)
    low, high = reliability(SURE, RIGHT, bins=2)
    assert (low.confidence, low.correct, low.count) == pytest.approx((0.25, 0.5, 2))
    assert (high.confidence, high.correct, high.count) == pytest.approx((0.85, 0.5, 2))


def test_the_perfectly_calibrated_have_no_error() -> None:
    assert expected_calibration_error([0.5, 0.5, 1.0], [True, False, True]) == 0.0


def test_brier_by_hand() -> None:
    assert brier(SURE, RIGHT) == pytest.approx((0.01 + 0.64 + 0.49 + 0.04) / 4)


def test_auroc_by_hand() -> None:
    # 0.9 beats both wrong ones, 0.3 beats one
    assert auroc(SURE, RIGHT) == pytest.approx(3 / 4)
    assert auroc([0.5, 0.5], [True, False]) == 0.5
    assert math.isnan(auroc([0.5, 0.6], [True, True]))


def test_risk_and_coverage_by_hand() -> None:
    points = risk_coverage(SURE, RIGHT)
    assert [one.coverage for one in points] == [0.25, 0.5, 0.75, 1.0]
    assert [one.risk for one in points] == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert [one.threshold for one in points] == SURE
    assert aurc(SURE, RIGHT) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_equal_confidence_comes_in_together() -> None:
    assert [one.coverage for one in risk_coverage([0.5, 0.5, 0.1], [True, False, True])] == [
        pytest.approx(2 / 3),
        1.0,
    ]
    assert aurc([0.5] * 4, RIGHT) == 0.5


@settings(deadline=None)
@given(ANSWERS)
def test_auroc_is_the_chance_of_a_right_pair(answers: list[tuple[float, bool]]) -> None:
    good = [sure for sure, right in answers if right]
    bad = [sure for sure, right in answers if not right]
    wins = [(a > b) + (a == b) / 2 for a in good for b in bad]
    if wins:
        assert auroc(*apart(answers)) == pytest.approx(sum(wins) / len(wins))


@settings(deadline=None)
@given(ANSWERS)
def test_aurc_is_the_mean_risk(answers: list[tuple[float, bool]]) -> None:
    risks = []
    for sure, _ in answers:
        inside = [right for other, right in answers if other >= sure]
        risks.append(1 - sum(inside) / len(inside))
    assert aurc(*apart(answers)) == pytest.approx(sum(risks) / len(risks))


@settings(deadline=None)
@given(ANSWERS, st.integers(1, 15))
def test_the_error_is_that_of_its_bins(answers: list[tuple[float, bool]], bins: int) -> None:
    sure, right = apart(answers)
    drawn = reliability(sure, right, bins=bins)
    assert sum(one.count for one in drawn) == len(answers)
    assert len(drawn) <= bins
    gaps = [one.count * abs(one.confidence - one.correct) for one in drawn]
    error = expected_calibration_error(sure, right, bins=bins)
    assert error == pytest.approx(sum(gaps) / len(answers))


@settings(deadline=None)
@given(st.permutations(range(40)), st.integers(1, 8))
def test_bins_are_equally_full(order: list[int], bins: int) -> None:
    sure = [place / 40 for place in order]
    counts = [one.count for one in reliability(sure, [True] * 40, bins=bins)]
    assert max(counts) - min(counts) <= 1
    assert len(counts) == bins


@pytest.mark.parametrize(
    ("statistic", "figure"),
    [
        ("calibration_error_statistic", expected_calibration_error),
        ("auroc_statistic", auroc),
        ("aurc_statistic", aurc),
    ],
)
@settings(deadline=None)
@given(answers=ANSWERS, data=st.data())
def test_a_weight_of_two_is_an_answer_twice(
    statistic: str, figure: object, answers: list[tuple[float, bool]], data: st.DataObject
) -> None:
    counts = data.draw(st.lists(st.integers(0, 2), min_size=len(answers), max_size=len(answers)))
    repeated = [one for one, count in zip(answers, counts, strict=True) for _ in range(count)]
    if not repeated:
        return
    weighted = getattr(calibration, statistic)(*apart(answers))(np.array([counts], float))[0]
    assert weighted == pytest.approx(figure(*apart(repeated)), nan_ok=True)  # type: ignore[operator]
