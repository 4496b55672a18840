"""The formulas by hand; that they are those of transformers is tested in `tests/compat`."""

import math

import pytest
import torch
from torch import Tensor

from consilience.errors import UsageError
from consilience.model.as_transformers import (
    LossOptions,
    marginal_sums,
    sequence_loss,
    shifted_targets,
    token_loss,
)

PAD = 9
OPTIONS = LossOptions(pad=PAD, vocabulary_size=10)
SCORES = torch.tensor([[0.0, math.log(3.0)]])
"""Priors of 1/4 and 3/4."""


def logs(*rows: list[float]) -> Tensor:
    """Probabilities as `[1, k, t]` log p."""
    return torch.tensor([rows]).log()


def test_targets_are_one_position_earlier() -> None:
    fed = torch.tensor([[1, 2, 3], [4, 5, PAD]])
    assert shifted_targets(fed, PAD).tolist() == [[2, 3, PAD], [5, PAD, PAD]]


def test_rag_token_is_a_product_of_sums() -> None:
    loss = token_loss(
        SCORES, logs([0.5, 0.1], [0.1, 0.5]), torch.tensor([[1, PAD]]), options=OPTIONS
    )
    torch.testing.assert_close(loss, -torch.tensor([0.25 * 0.5 + 0.75 * 0.1]).log())


def test_rag_sequence_is_a_sum_of_products() -> None:
    loss = sequence_loss(
        SCORES, logs([0.5, 0.1], [0.2, 0.5]), torch.tensor([[1, 2]]), options=OPTIONS
    )
    torch.testing.assert_close(loss, -torch.tensor([0.25 * 0.05 + 0.75 * 0.1]).log())


def test_the_prior_goes_with_the_second_position() -> None:
    given = logs([0.5, 0.1], [0.2, 0.5])
    loss = sequence_loss(SCORES, given, torch.tensor([[1, PAD]]), options=OPTIONS)
    torch.testing.assert_close(loss, -torch.tensor([0.5 + 0.2]).log())
    alone = sequence_loss(SCORES, given[..., :1], torch.tensor([[1]]), options=OPTIONS)
    torch.testing.assert_close(alone, loss)


@pytest.mark.parametrize(("others", "counts"), [(0, False), (1, True)])
def test_the_start_token_is_left_out_of_all_rows_or_none(others: int, counts: bool) -> None:
    options = LossOptions(pad=PAD, vocabulary_size=10, bos=0, exclude_bos=True)
    given = logs([0.5, 0.1], [0.2, 0.5]).expand(2, 2, 2)
    targets = torch.tensor([[0, 2], [others, 2]])
    loss = sequence_loss(SCORES.expand(2, 2), given, targets, options=options)[0]
    first = (0.5, 0.2) if counts else (1.0, 1.0)
    expected = 0.25 * 0.1 * first[0] + 0.75 * 0.5 * first[1]
    torch.testing.assert_close(loss, -torch.tensor(expected).log())


def test_smoothing_counts_the_prior_once_a_word() -> None:
    options = LossOptions(pad=PAD, vocabulary_size=10, smoothing=0.5)
    given = logs([1.0, 1.0], [1.0, 1.0])
    sums = torch.tensor([[[-3.0, -4.0], [-5.0, -6.0]]])
    loss = sequence_loss(SCORES, given, torch.tensor([[1, 2]]), options=options, sums=sums)
    each = [-7.0 + 10 * math.log(0.25), -11.0 + 10 * math.log(0.75)]
    smooth = -torch.tensor(each).logsumexp(0)
    torch.testing.assert_close(loss, (0.05 * smooth)[None])


def test_smoothing_of_a_marginal() -> None:
    options = LossOptions(pad=PAD, vocabulary_size=2, smoothing=0.5)
    probs = torch.tensor([[[[0.5, 0.5]], [[0.1, 0.9]]]])
    sums = marginal_sums(SCORES, probs.log() + 3.0)
    mixed = 0.25 * probs[0, 0] + 0.75 * probs[0, 1]
    torch.testing.assert_close(
        sums,
        mixed.log().sum(-1)[
            None,
            :,
        ],
    )
    loss = token_loss(SCORES, probs[..., 0].log(), torch.tensor([[0]]), options=options, sums=sums)
    expected = -0.5 * mixed[0, 0].log() - 0.25 * mixed.log().sum()
    torch.testing.assert_close(loss, expected[None])


def test_losses_are_added_up_if_asked() -> None:
    options = LossOptions(pad=PAD, vocabulary_size=10, reduce=True)
    given, targets = logs([0.5, 0.1], [0.1, 0.5]).expand(2, 2, 2), torch.tensor([[1, 2], [1, 2]])
    for compute in (token_loss, sequence_loss):
        apart = compute(SCORES.expand(2, 2), given, targets, options=OPTIONS)
        together = compute(SCORES.expand(2, 2), given, targets, options=options)
        torch.testing.assert_close(together, apart.sum())


def test_double_precision_is_kept() -> None:
    given = logs([0.5, 0.1], [0.1, 0.5]).double()
    loss = token_loss(SCORES.double(), given, torch.tensor([[1, 2]]), options=OPTIONS)
    assert loss.dtype == torch.float64


@pytest.mark.parametrize("compute", [token_loss, sequence_loss])
def test_smoothing_needs_the_sums(compute: object) -> None:
    options = LossOptions(pad=PAD, vocabulary_size=10, smoothing=0.1)
    with pytest.raises(UsageError, match=r"label smoothing of 0\.1 needs the sums") as raised:
        compute(  # type: ignore[operator]
            SCORES, logs([0.5], [0.1]), torch.tensor([[1]]), options=options
        )
    assert raised.value.hint == "pass sums=, or set the smoothing to 0"
