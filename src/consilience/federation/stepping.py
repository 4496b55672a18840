"""The coordinator's step: from the mean of a round to the shared weights of the next.

With no optimiser `x += rate * d` (FedAvg). FedAdam and FedYogi (Reddi et al. 2021) take the mean as
a gradient with the sign turned:

    m = b1 m + (1 - b1) d
    v = b2 v + (1 - b2) d^2                          adam
    v = v - (1 - b2) d^2 sign(v - d^2)               yogi
    x += rate * m / (sqrt(v) + t)

with `b1 = 0.9`, `b2 = 0.99`, `t = 0.001`, `m = 0` and `v = t^2` in the beginning, and without a
correction for the beginning, as in the paper. Control variates (SCAFFOLD, Karimireddy et al. 2020)
take neither rate nor optimiser: `c += |asked| / |known| * d`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from consilience.federation.combining import CONTROL
from consilience.federation.config import MeanSettings
from consilience.federation.contracts import Weights

FIRST_DECAY, SECOND_DECAY, FLOOR = 0.9, 0.99, 1e-3


@dataclass(frozen=True, slots=True)
class Moments:
    """What an optimiser remembers, float32, by names of weights; empty without one.

    Attributes:
        first: `m`.
        second: `v`.
    """

    first: Mapping[str, Tensor] = field(default_factory=dict)
    second: Mapping[str, Tensor] = field(default_factory=dict)

    def to_tensors(self) -> dict[str, Tensor]:
        """As one table, for a checkpoint."""
        first = {f"first/{name}": value for name, value in self.first.items()}
        return first | {f"second/{name}": value for name, value in self.second.items()}

    @classmethod
    def parse(cls, tensors: Mapping[str, Tensor]) -> "Moments":
        """What `to_tensors` made."""
        return cls(_under("first/", tensors), _under("second/", tensors))


def stepped(
    weights: Weights, mean: Weights, moments: Moments, *, settings: MeanSettings, share: float
) -> tuple[dict[str, Tensor], Moments]:
    """The shared weights after a round.

    Args:
        weights: Before it.
        mean: Of the updates; weights that are not in it stay as they are.
        moments: Of the optimiser before it.
        settings: Rate and optimiser.
        share: Of the known parties, whose updates are in the mean.

    Returns:
        The weights and the moments after it, float32; what was given is not changed.
    """
    after, first, second = dict(weights), dict(moments.first), dict(moments.second)
    for name, change in mean.items():
        if name.startswith(CONTROL):
            after[name] = _added(weights[name], change, share)
        elif settings.optimiser == "none":
            after[name] = _added(weights[name], change, settings.rate)
        else:
            before = first.get(name), second.get(name)
            first[name], second[name] = _moments(change.float(), *before, kind=settings.optimiser)
            step = first[name] / (second[name].sqrt() + FLOOR)
            after[name] = _added(weights[name], step, settings.rate)
    return after, Moments(first, second)


def _added(value: Tensor, change: Tensor, rate: float) -> Tensor:
    """`value + rate * change`, rounded once."""
    return (value.double() + rate * change.double()).float()


def _moments(
    change: Tensor, first: Tensor | None, second: Tensor | None, *, kind: str
) -> tuple[Tensor, Tensor]:
    first = torch.zeros_like(change) if first is None else first
    second = torch.full_like(change, FLOOR**2) if second is None else second
    square = change.square()
    first = FIRST_DECAY * first + (1 - FIRST_DECAY) * change
    if kind == "adam":
        return first, SECOND_DECAY * second + (1 - SECOND_DECAY) * square
    return first, second - (1 - SECOND_DECAY) * square * (second - square).sign()


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
