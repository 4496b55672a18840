"""Weights shared out among processes (FSDP): each keeps a part, and all are gathered for a step.

Between steps a process holds its part of every weight, and of the moments of the optimiser, which
are the larger half; gradients are added up into parts. While a step is computed all weights are
there, as one group: objectives ask the parts of a model by name, and not layer by layer through
`forward`, where smaller groups would be gathered. Numbers without dimensions, such as the
temperature, are not cut, and every process has them.

It knows tensors and no files; a whole is the same whoever had parts of it, so that a run of any
number of processes can go on from it.

Source: Zhao et al., 2023, "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel".
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import all_reduce, get_world_size
from torch.distributed.tensor import DTensor, distribute_tensor

HOW: Mapping[str, Any] = {
    "version": 2,
    "auto_wrap_policy": "NO_WRAP",
    "state_dict_type": "FULL_STATE_DICT",
}
"""What transformers is told: one group, whose root is the learner."""


def uncut(learner: nn.Module) -> nn.ParameterList:
    """The weights that every process has whole: those without dimensions."""
    return nn.ParameterList(weight for weight in learner.parameters() if not weight.dim())


def average_uncut(learner: nn.Module) -> None:
    """Give the weights that are not cut the mean of all processes' gradients.

    Args:
        learner: After its backward pass, in every process.
    """
    for weight in uncut(learner):
        if weight.requires_grad:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            all_reduce(weight.grad)
            weight.grad /= get_world_size()


@contextmanager
def gathered(learner: nn.Module) -> Iterator[None]:
    """All weights are there until what follows `with` is done, to be looked at only."""
    if not any(isinstance(weight, DTensor) for weight in learner.parameters()):
        yield
        return
    module: Any = learner
    module.unshard()
    try:
        yield
    finally:
        module.reshard()


def put_together(learner: nn.Module) -> None:
    """All weights are there for good, as plain tensors, and in their own places.

    Args:
        learner: That is trained no further.
    """
    known: dict[nn.Parameter, nn.Parameter] = {}
    for module in learner.modules():
        for name, weight in module.named_parameters(recurse=False, remove_duplicate=False):
            if isinstance(weight, DTensor):
                if weight not in known:
                    plain = whole(weight).detach().clone()
                    known[weight] = nn.Parameter(plain, requires_grad=weight.requires_grad)
                setattr(module, name, known[weight])


def whole(value: Tensor) -> Tensor:
    """A tensor of which every process may have a part; all of them have to ask."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def like(value: Tensor, weight: Tensor) -> Tensor:
    """A whole, in parts where the weight is; other shapes than the weight's are left alone."""
    if not isinstance(weight, DTensor) or value.shape != weight.shape:
        return value
    return distribute_tensor(value, weight.device_mesh, weight.placements)


def whole_moments(optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """The state of an optimiser as one process alone would have it."""
    found = optimiser.state_dict()
    state = {
        index: {name: whole(v) if isinstance(v, Tensor) else v for name, v in moments.items()}
        for index, moments in found["state"].items()
    }
    return found | {"state": state}


def put_moments(optimiser: torch.optim.Optimizer, found: Mapping[str, Any]) -> None:
    """Give an optimiser the state that `whole_moments` told."""
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    state = {
        index: {
            name: like(v, weights[index]) if isinstance(v, Tensor) else v
            for name, v in moments.items()
        }
        for index, moments in found["state"].items()
    }
    optimiser.load_state_dict({**found, "state": state})
