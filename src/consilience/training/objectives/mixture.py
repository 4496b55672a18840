"""Several objectives as one loss, each with its weight and its own number in the log."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from consilience.errors import UsageError


@dataclass(frozen=True, slots=True)
class Mixed:
    """A loss and what it is made of.

    Attributes:
        loss: The weighted sum, to be differentiated.
        parts: The value of each objective, without its weight.
    """

    loss: Tensor
    parts: dict[str, float]


@dataclass(frozen=True, slots=True)
class Mixture:
    """`L = sum_i w_i L_i`.

    Example:
        >>> import torch
        >>> mixture = Mixture({"sequence": 1.0, "perplexity": 0.5, "margin": 0.0})
        >>> mixed = mixture({
        ...     "sequence": lambda: torch.tensor(2.0),
        ...     "perplexity": lambda: torch.tensor(4.0),
        ...     "margin": lambda: 1 / 0,  # never asked for, as its weight is zero
        ... })
        >>> mixed.loss.item(), mixed.parts
        (4.0, {'sequence': 2.0, 'perplexity': 4.0})

    Attributes:
        weights: Of each objective, by name; not negative, one above zero. Zero switches it off.
    """

    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        wrong = {
            name: weight
            for name, weight in self.weights.items()
            if not (math.isfinite(weight) and weight >= 0)
        }
        if wrong or not any(self.weights.values()):
            received = ", ".join(f"{name}={weight}" for name, weight in self.weights.items())
            raise UsageError(
                "weights must be 0 or more, and one of them above 0; "
                f"received {received or 'none'}",
                hint='Give for instance {"sequence": 1.0, "perplexity": 0.1}.',
            )

    @property
    def active(self) -> tuple[str, ...]:
        """The objectives whose weight is above zero."""
        return tuple(name for name, weight in self.weights.items() if weight)

    def __call__(self, objectives: Mapping[str, Callable[[], Tensor]]) -> Mixed:
        """The weighted sum of what the functions give; those of weight zero are not called.

        Args:
            objectives: A function without arguments for each name, giving a scalar.

        Raises:
            UsageError: An objective is missing, or its value is not finite.
        """
        missing = [name for name in self.active if name not in objectives]
        if missing:
            raise UsageError(
                f"no objective called {', '.join(missing)}; there are "
                f"{', '.join(objectives) or 'none'}",
                hint="Set its weight to 0, or give what it learns from.",
            )
        values = {name: _finite(name, objectives[name]()) for name in self.active}
        terms = [self.weights[name] * value for name, value in values.items()]
        loss = sum(terms[1:], start=terms[0])
        return Mixed(loss, {name: float(value.detach()) for name, value in values.items()})


def _finite(name: str, value: Tensor) -> Tensor:
    if not bool(value.detach().isfinite()):
        raise UsageError(
            f"the objective {name} is {value.item()}",
            hint="Lower the learning rate, or look for NaN in the scores and the data.",
        )
    return value
