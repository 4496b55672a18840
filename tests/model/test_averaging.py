import pytest
import torch

from consilience.errors import UsageError
from consilience.model import RankWeights
from consilience.model.averaging import uniform

PRESENT = torch.tensor([[True, True, True], [True, True, False]])


def test_weights_are_shared_out_among_the_passages_that_are_there() -> None:
    weights = RankWeights([2, 1, 1])(PRESENT).exp()
    torch.testing.assert_close(weights, torch.tensor([[0.5, 0.25, 0.25], [2 / 3, 1 / 3, 0.0]]))
    torch.testing.assert_close(uniform(PRESENT).exp()[1], torch.tensor([0.5, 0.5, 0.0]))


def test_fewer_passages_than_ranks_take_the_first_weights() -> None:
    weights = RankWeights([3, 1, 1])(PRESENT[:1, :2]).exp()
    torch.testing.assert_close(weights, torch.tensor([[0.75, 0.25]]))


def test_more_passages_than_ranks_are_refused() -> None:
    with pytest.raises(UsageError, match="weights for 2 ranks, received 3 passages") as caught:
        RankWeights([1, 1])(PRESENT)
    assert caught.value.hint == "take k=2, or build RankWeights with 3 weights"


@pytest.mark.parametrize("weights", [[], [1, 0], [1, -1], [1, float("nan")], [float("inf")]])
def test_weights_that_are_none_are_refused(weights: list[float]) -> None:
    with pytest.raises(UsageError, match="weights of ranks must be above zero"):
        RankWeights(weights)


def test_only_learned_weights_move() -> None:
    assert RankWeights([1, 1]).log_weights.requires_grad
    assert not RankWeights([1, 1], learned=False).log_weights.requires_grad
