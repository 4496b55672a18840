"""Saying that there is no answer: values by hand, both ends, and the saturated case."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from consilience.training.objectives import none_likelihood, support_likelihood

SCORES = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.5, 0.0]], dtype=torch.float64)
NONE = torch.tensor([[0.9, 0.5, 0.1], [0.2, 0.3, 0.95]], dtype=torch.float64).log()
UNANSWERABLE = torch.tensor([True, False])


def test_none_by_hand() -> None:
    said = (SCORES.softmax(-1) * NONE.exp()).sum(-1)
    expected = -(said[0].log() + (1 - said[1]).log()) / 2
    torch.testing.assert_close(none_likelihood(SCORES, NONE, UNANSWERABLE), expected)


def test_support_by_hand() -> None:
    supports = torch.tensor([[False, True, False], [True, True, False]])
    known = torch.tensor([[True, True, False], [False, False, True]])
    expected = -(math.log(0.9) + math.log(0.5) + math.log(0.95)) / 3
    assert float(support_likelihood(NONE, supports, known)) == pytest.approx(expected)


def test_gradients_agree_with_finite_differences() -> None:
    def sum_(given: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
        return none_likelihood(given, told, UNANSWERABLE, temperature=0.5)

    assert gradcheck(sum_, (SCORES.clone().requires_grad_(), NONE.clone().requires_grad_()))
    supports = torch.tensor([[False, True, False], [True, True, False]])
    known = torch.ones(2, 3, dtype=torch.bool)

    def each(told: torch.Tensor) -> torch.Tensor:
        return support_likelihood(told, supports, known)

    assert gradcheck(each, (NONE.clone().requires_grad_(),))


def test_unanswerable_raises_none_everywhere_and_answerable_lowers_it() -> None:
    for unanswerable, sign in ((True, -1), (False, 1)):
        told = NONE.clone().requires_grad_()
        none_likelihood(SCORES, told, torch.tensor([unanswerable] * 2)).backward()
        assert told.grad is not None
        assert bool((told.grad * sign > 0).all())


@pytest.mark.parametrize("log_p", [0.0, -1e-12, -1e-9])
def test_a_certain_mistake_is_finite_and_still_corrected(log_p: float) -> None:
    told = torch.tensor([[log_p]], requires_grad=True)
    known = torch.tensor([[True]])
    loss = support_likelihood(told, known, known)
    loss.backward()
    assert bool(loss.isfinite())
    assert told.grad is not None
    assert float(told.grad) > 1e6


@pytest.mark.parametrize("log_p", [-1e-5, -0.5, -0.6931, -0.7, -30.0, -100.0, float("-inf")])
def test_what_is_left_is_exact(log_p: float) -> None:
    told = torch.tensor([[log_p]], requires_grad=True)
    known = torch.tensor([[True]])
    loss = support_likelihood(told, known, known)
    expected = -math.log1p(-math.exp(log_p)) if log_p < -0.6931 else -math.log(-math.expm1(log_p))
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5, abs=1e-30)
    loss.backward()
    assert told.grad is not None
    assert bool(told.grad.isfinite().all())


def test_missing_passages_and_questions_without_any_do_not_count() -> None:
    given = torch.cat([SCORES, torch.full((2, 1), float("-inf"), dtype=torch.float64)], dim=1)
    told = torch.cat([NONE, NONE[:, :1]], dim=1)
    torch.testing.assert_close(
        none_likelihood(given, told, UNANSWERABLE), none_likelihood(SCORES, NONE, UNANSWERABLE)
    )
    given[1] = float("-inf")
    torch.testing.assert_close(
        none_likelihood(given, told, UNANSWERABLE),
        none_likelihood(SCORES[:1], NONE[:1], UNANSWERABLE[:1]),
    )


def test_nothing_known_is_zero_and_moves_nothing() -> None:
    told = NONE.clone().requires_grad_()
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    loss = support_likelihood(told, nothing, nothing)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert told.grad is not None
    assert float(told.grad.abs().max()) == 0.0
