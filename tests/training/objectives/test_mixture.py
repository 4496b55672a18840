"""Several objectives at once."""

import pytest
import torch

from consilience.errors import UsageError
from consilience.training.objectives import Mixture


def test_the_loss_is_the_weighted_sum_and_so_is_its_gradient() -> None:
    parameter = torch.tensor(3.0, requires_grad=True)
    mixture = Mixture({"square": 2.0, "plain": 0.5})
    mixed = mixture({"plain": lambda: parameter, "square": lambda: parameter**2})
    mixed.loss.backward()
    assert mixed.loss.item() == pytest.approx(2 * 9 + 0.5 * 3)
    assert mixed.parts == {"square": 9.0, "plain": 3.0}
    assert parameter.grad is not None
    assert float(parameter.grad) == pytest.approx(2 * 2 * 3 + 0.5)


def test_what_has_no_weight_is_not_computed() -> None:
    called: list[str] = []

    def costly() -> torch.Tensor:
        called.append("costly")
        return torch.tensor(1.0)

    mixture = Mixture({"plain": 1.0, "costly": 0.0})
    assert mixture.active == ("plain",)
    mixture({"plain": lambda: torch.tensor(1.0), "costly": costly})
    assert called == []


@pytest.mark.parametrize("weights", [{}, {"a": 0.0}, {"a": -1.0}, {"a": float("nan"), "b": 1.0}])
def test_weights_that_make_no_loss(weights: dict[str, float]) -> None:
    with pytest.raises(UsageError) as caught:
        Mixture(weights)
    assert caught.value.message.startswith("weights must be 0 or more, and one of them above 0;")
    assert caught.value.message.endswith(
        ", ".join(f"{name}={weight}" for name, weight in weights.items()) or "none"
    )


def test_an_objective_that_is_missing() -> None:
    with pytest.raises(UsageError, match="no objective called margin; there are plain"):
        Mixture({"margin": 1.0})({"plain": lambda: torch.tensor(1.0)})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_objective_that_is_no_number_is_named(value: float) -> None:
    with pytest.raises(UsageError, match=f"the objective bad is {value}"):
        Mixture({"good": 1.0, "bad": 1.0})(
            {"good": lambda: torch.tensor(1.0), "bad": lambda: torch.tensor(value)}
        )
