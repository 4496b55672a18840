"""In which numbers a model computes: full, half, or whole ones of eight bits.

Half precision is for devices that multiply it. Eight bits are for processors: the generator's
weights become whole numbers with one scale each row, its inputs are rounded as they come, and sums
stay float32 (dynamic quantisation). The retriever keeps its numbers, since a store's vectors are
those of the encoder as it was, and the vocabulary keeps its own, since a sum over passages compares
its last digits.
"""

import warnings
from copy import deepcopy
from typing import Any, Literal, get_args

import torch
from torch import nn

from consilience.encoding.narrow import Linear
from consilience.errors import UsageError
from consilience.model.rag_model import RagModel

Precision = Literal["float32", "bfloat16", "float16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_HEADS = ("lm_head", "predictions.decoder")
"""Layers over the vocabulary."""


def set_precision(model: RagModel, precision: Precision) -> None:
    """Have a model compute in other numbers from here on; eight bits cannot be taken back.

    Args:
        model: The sum; changed in place.
        precision: Which numbers.

    Raises:
        UsageError: An unknown precision, or eight bits on a device that is no processor.
    """
    if precision not in PRECISIONS:
        raise UsageError(
            f"unknown precision {precision!r}", hint=f"choose one of: {', '.join(PRECISIONS)}"
        )
    if precision != "int8":
        model.to(getattr(torch, precision))
        return
    device = model.generator.device
    if device.type != "cpu":
        raise UsageError(
            f"int8 is for processors, and the model is on {device}",
            hint="take bfloat16 or float16 there",
        )
    assert isinstance(model.generator, nn.Module)
    _part(model.generator, [model.question_encoder, model.passage_encoder])
    _quantise(model.generator.float())


def _part(generator: nn.Module, encoders: list[Any]) -> None:
    """Give the generator its own of what it shares with the retriever, which keeps its numbers."""
    modules = [one for one in encoders if isinstance(one, nn.Module)]
    theirs = {id(weight) for one in modules for weight in one.parameters()}
    for name, child in list(generator.named_children()):
        if any(id(weight) in theirs for weight in child.parameters()):
            setattr(generator, name, deepcopy(child))


def _quantise(module: nn.Module) -> None:
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, Linear):
                setattr(parent, name, layer.plain())
    layers = {
        name: torch.ao.quantization.default_dynamic_qconfig
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and not name.endswith(_HEADS)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        quantise: Any = torch.ao.quantization.quantize_dynamic
        quantise(module, layers, inplace=True)
