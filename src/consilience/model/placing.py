"""Where a model computes: on the processor, or on an accelerator that torch finds.

One word moves everything that a question needs, the encoder of passages with it; what is not moved
computes on the processor. Training asks nothing here: transformers' Trainer places what it trains.
"""

import os
from functools import cache
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from consilience.errors import UsageError

VARIABLE = "CONSILIENCE_DEVICE"


@runtime_checkable
class Movable(Protocol):
    """An encoder whose weights can be moved."""

    def move(self, device: torch.device) -> None:
        """Compute there from now on."""
        ...


def device_named(name: str | None) -> torch.device | None:
    """The device of a name, or of the environment.

    Args:
        name: As torch writes it (`cpu`, `cuda`, `cuda:1`, `mps`); `auto` is the accelerator that
            torch finds, else the processor. None for `CONSILIENCE_DEVICE`.

    Returns:
        None where neither says anything.

    Raises:
        UsageError: There is no such device here.
    """
    name = name or os.environ.get(VARIABLE)
    if not name:
        return None
    found = _found()
    if name == "auto":
        return found[-1]
    try:
        device = torch.device(name)
        known = device.type in {one.type for one in found}
    except RuntimeError:
        known = False
    if not known or not _there(device):
        there = ", ".join(map(str, found))
        raise UsageError(
            f"no device {name!r} here; torch finds {there}",
            hint=f"take one of these, or auto; {VARIABLE} is read where none is named",
        )
    return device


def _found() -> list[torch.device]:
    """The processor, and the accelerator if there is one."""
    here = torch.accelerator.current_accelerator(check_available=True)
    return [torch.device("cpu"), *([] if here is None else [here])]


def _there(device: torch.device) -> bool:
    count = torch.accelerator.device_count() if device.type != "cpu" else 1
    return (device.index or 0) < count


def in_float64(values: Tensor) -> Tensor:
    """Values in float64: where they are, or on the processor if their device (Metal) has none."""
    return values.double() if _has_float64(values.device) else values.cpu().double()


@cache
def _has_float64(device: torch.device) -> bool:
    try:
        torch.zeros((), dtype=torch.float64, device=device)
    except TypeError:
        return False
    return True


def place(model: object, encoder: object, device: torch.device) -> None:
    """Move the parts of a model that can be moved: its weights here, and those of its encoder."""
    if isinstance(model, nn.Module):
        model.to(device)
    if isinstance(encoder, Movable):
        encoder.move(device)
