"""Means over what counts, and no NaN on the way there or back."""

import pytest
import torch

from consilience.training.objectives.reduction import (
    divergence,
    mean_where,
    present,
    safe_log_softmax,
)


def test_what_is_not_kept_may_be_anything() -> None:
    values = torch.tensor([1.0, float("nan"), 3.0, float("inf")], requires_grad=True)
    mean = mean_where(values, torch.tensor([True, False, True, False]))
    mean.backward()
    assert mean.item() == 2.0
    assert values.grad is not None
    assert values.grad.tolist() == [0.5, 0.0, 0.5, 0.0]


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_an_empty_row_has_no_nan_even_inside() -> None:
    """The first NaN of a run is searched with anomaly detection: none of ours may come first."""
    logits = torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, 5.0]], requires_grad=True)
    kept = torch.tensor([[True, True], [False, False], [False, True]])
    with torch.autograd.set_detect_anomaly(True):
        told = safe_log_softmax(logits, kept)
        told.sum().backward()
    assert told[1].tolist() == [0.0, 0.0]
    assert told[2].tolist() == [0.0, 0.0]
    torch.testing.assert_close(told[0].exp().sum(), torch.tensor(1.0))
    assert logits.grad is not None
    assert logits.grad[1:].tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_divergence_by_hand() -> None:
    target = torch.tensor([[0.5, 0.5, 0.0]])
    log_probs = torch.tensor([[0.25, 0.75, 1.0]]).log()
    expected = 0.5 * torch.tensor(2.0).log() + 0.5 * torch.tensor(2 / 3).log()
    torch.testing.assert_close(divergence(target, log_probs)[0], expected)


def test_a_score_of_minus_infinity_says_that_there_is_no_passage() -> None:
    assert present(torch.tensor([0.0, float("-inf"), -1e9])).tolist() == [True, False, True]
