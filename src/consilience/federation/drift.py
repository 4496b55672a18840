"""What holds a party back from wandering off on its own questions.

FedProx (Li et al., 2020, "Federated Optimization in Heterogeneous Networks") adds to the loss

    mu / 2 * ||w - w0||^2        w0: the shared weights as they came

SCAFFOLD (Karimireddy et al., 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated
Learning", option II) corrects every gradient by the difference of two control variates, and so adds

    <c - c_i, w>                 c: of all parties, c_i: of this one

    c_i+ = c_i - c + (w0 - w) / sum of the step sizes

It is stated for plain gradient steps, so a party takes those while it is used. Both are terms of
the loss in the weights alone, whose gradients join the others before they are clipped.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from consilience.federation.contracts import Weights
from consilience.federation.travelling import Travelling


class Proximal:
    """FedProx.

    Args:
        travelling: The weights.
        moving: Which of them are trained.
        start: As they came.
        strength: `mu`.
    """

    def __init__(
        self, travelling: Travelling, moving: Sequence[str], start: Weights, strength: float
    ) -> None:
        self.travelling, self.moving, self.strength = travelling, moving, strength
        self.start = {name: start[name] for name in moving}

    def __call__(self) -> Tensor:
        """`mu / 2 * ||w - w0||^2`."""
        squares = [self._square(name) for name in self.moving]
        return self.strength / 2 * torch.stack(squares).sum()

    def _square(self, name: str) -> Tensor:
        # Where the weight is, a first step knows.
        self.start[name] = self.start[name].to(self.travelling.shared[name].device)
        return self.travelling.offset(name, self.start[name]).square().sum()


class Scaffold(TrainerCallback):
    """SCAFFOLD; as a callback it notes the sizes of the steps that were taken.

    Args:
        weights: Those that are trained, by name.
        common: `c`.
        own: `c_i`.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], common: Weights, own: Weights) -> None:
        self.weights, self.common, self.own = weights, common, own
        self.start = {name: weight.detach().clone() for name, weight in weights.items()}
        self.correction = {name: common[name] - own[name] for name in weights}
        self.sizes: dict[int, float] = {}

    def __call__(self) -> Tensor:
        """`<c - c_i, w>`."""
        terms = [self._term(name, weight) for name, weight in self.weights.items()]
        return torch.stack(terms).sum()

    def _term(self, name: str, weight: nn.Parameter) -> Tensor:
        # Where the weight is, a first step knows.
        self.correction[name] = self.correction[name].to(weight.device)
        return (self.correction[name] * weight).sum()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **told: Any
    ) -> None:
        """Note the size of the step that comes."""
        del args, state, control
        for group in told["optimizer"].param_groups:
            for weight in group["params"]:
                self.sizes[id(weight)] = self.sizes.get(id(weight), 0.0) + group["lr"]

    def controls(self) -> dict[str, Tensor]:
        """`c_i+`, float32 on the processor; `c_i` where no step had a size."""
        return {name: self._control(name, weight) for name, weight in self.weights.items()}

    def _control(self, name: str, weight: nn.Parameter) -> Tensor:
        size = self.sizes.get(id(weight), 0.0)
        if not size:
            return self.own[name].clone()
        moved = (self.start[name].to(weight.device) - weight.detach()) / size
        return self.own[name] - self.common[name] + moved.float().cpu()


def plain_steps(
    weights: Mapping[str, nn.Parameter], *, rate: float, encoder_rate: float | None
) -> torch.optim.Optimizer:
    """Gradient steps without memory or decay; encoders may have a rate of their own."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, weight in weights.items():
        own = rate if encoder_rate is None or "_encoder." not in name else encoder_rate
        groups.setdefault(own, []).append(weight)
    return torch.optim.SGD([{"params": found, "lr": own} for own, found in groups.items()], lr=rate)
