"""Weights of a confidence: found again where they are known, and sensible where they are not."""

import math

import numpy as np
import pytest
import torch

from consilience.errors import UsageError
from consilience.evaluation.calibration import expected_calibration_error
from consilience.evaluation.fitting import Judged, fit_confidence, fit_threshold
from consilience.model.confidence import Confidence, log_odds


def drawn(truth: Confidence, count: int, seed: int = 0) -> list[Judged]:
    """Answers that are right as often as a confidence says."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        support, tokens = float(rng.beta(1.5, 1.2)), int(rng.integers(2, 9))
        log_likelihood = -float(rng.exponential(1.0)) * tokens
        right = bool(rng.random() < truth.of(support, log_likelihood, tokens))
        found.append(Judged(support, log_likelihood, tokens, right))
    return found


def told(confidence: Confidence, answers: list[Judged]) -> list[float]:
    return [confidence.of(one.support, one.log_likelihood, one.tokens) for one in answers]


def test_known_weights_are_found_again() -> None:
    truth = Confidence(bias=0.4, support=0.8, likelihood=1.2)
    found = fit_confidence(drawn(truth, 20_000))
    assert found.bias == pytest.approx(truth.bias, abs=0.1)
    assert found.support == pytest.approx(truth.support, abs=0.1)
    assert found.likelihood == pytest.approx(truth.likelihood, abs=0.1)


def test_a_fitted_confidence_is_the_share_that_is_right() -> None:
    truth = Confidence(bias=-1.0, support=0.5, likelihood=2.0)
    found, others = fit_confidence(drawn(truth, 4_000)), drawn(truth, 4_000, seed=1)
    right = [one.right for one in others]
    assert expected_calibration_error(told(found, others), right) < 0.03
    assert expected_calibration_error([one.support for one in others], right) > 0.15


def test_it_is_the_least_loss_of_the_smoothed_targets() -> None:
    """Against a minimiser that knows nothing of it."""
    answers = drawn(Confidence(0.1, 0.6, 0.9), 300)
    found = fit_confidence(answers)
    rows = [[1.0, log_odds(one.support), one.log_likelihood / one.tokens] for one in answers]
    inputs, hits = torch.tensor(rows).double(), sum(one.right for one in answers)
    high, low = (hits + 1) / (hits + 2), 1 / (len(answers) - hits + 2)
    targets = torch.tensor([high if one.right else low for one in answers]).double()
    weights = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([weights], max_iter=200, tolerance_grad=1e-10)

    def loss() -> torch.Tensor:
        search.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(inputs @ weights, targets)
        torch.autograd.backward(value)
        return value

    search.step(loss)  # type: ignore[no-untyped-call]
    wanted = weights.tolist()
    assert [found.bias, found.support, found.likelihood] == pytest.approx(wanted, abs=1e-4)


def test_answers_that_are_told_apart_wholly_leave_it_bounded() -> None:
    answers = [Judged(0.9, -0.1, 2, right=True), Judged(0.1, -4.0, 2, right=False)] * 20
    found = fit_confidence(answers)
    assert max(abs(one) for one in (found.bias, found.support, found.likelihood)) < 100
    assert found.of(0.9, -0.1, 2) == pytest.approx(21 / 22, abs=0.01)
    assert found.of(0.1, -4.0, 2) == pytest.approx(1 / 22, abs=0.01)


@pytest.mark.parametrize(
    ("truth", "zero"),
    [(Confidence(0.0, -0.8, 1.0), "support"), (Confidence(0.0, 0.8, -1.0), "likelihood")],
)
def test_what_would_count_the_wrong_way_is_left_out(truth: Confidence, zero: str) -> None:
    found = fit_confidence(drawn(truth, 3_000))
    assert getattr(found, zero) == 0.0
    assert max(found.support, found.likelihood) > 0.3


def test_where_neither_tells_anything_it_is_the_share_that_is_right() -> None:
    answers = [Judged(0.2, -3.0, 2, right=True), Judged(0.8, -0.2, 2, right=False)] * 30
    found = fit_confidence([*answers, *answers[::2]])
    assert (found.support, found.likelihood) == (0.0, 0.0)
    assert found.of(0.5, -1.0, 2) == pytest.approx(2 / 3, abs=0.02)


@pytest.mark.parametrize("right", [True, False])
def test_one_kind_of_answer_tells_nothing_of_the_other(right: bool) -> None:
    with pytest.raises(UsageError, match="right, which tells nothing of the others"):
        fit_confidence([Judged(0.5, -1.0, 2, right=right)] * 10)


def test_ends_of_the_support_are_bounded() -> None:
    answers = [Judged(1.0, 0.0, 1, right=True), Judged(0.0, -50.0, 1, right=False)] * 5
    found = fit_confidence([*answers, Judged(0.5, -1.0, 1, right=True)])
    assert all(math.isfinite(one) for one in (found.bias, found.support, found.likelihood))


def test_the_threshold_tells_both_kinds_best() -> None:
    answerable = [0.3 + 0.001 * place for place in range(400)]
    others = [0.01 + 0.001 * place for place in range(200)]
    assert fit_threshold(answerable, others) == 0.3
    assert fit_threshold([one + 0.0056 for one in answerable], others) == 0.305  # rounded down


def test_of_thresholds_that_tell_as_well_the_lowest_is_taken() -> None:
    """Less than a question of the rarer kind is no reason to withhold more answers."""
    answerable = [0.3, 0.6, 0.7, 0.8, 0.9]
    assert fit_threshold(answerable, [0.1, 0.2, 0.31, 0.35]) == 0.6  # two for one
    assert fit_threshold(answerable, [0.1, 0.2, 0.25, 0.35]) == 0.3  # one for one
