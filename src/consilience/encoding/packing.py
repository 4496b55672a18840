"""Matrices in eight bits for the disk: half the size of bfloat16, opened into bfloat16 again.

A group of 64 neighbours of a row shares one scale, the largest magnitude among them, as bfloat16
knows it, over 127:

    code = round(weight / scale)        weight ~ code * scale

so no weight moves by more than half a scale (rounding as in Jacob et al., 2018, "Quantization and
Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", symmetric). A packed
matrix `w` is two tensors, `w.int8` of its shape and `w.scale`, `[rows, groups]` in float32. Vectors
and matrices of a few rows (norms, biases, segments, gates) stay as they are: they are small, and
every token passes through them.

Nothing computes in eight bits here; what is opened is as fast, and takes as much memory, as what
was never packed. Opened weights are bfloat16 on every machine, so that the vectors' fingerprint is
the same everywhere and a model that is saved again keeps it.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from consilience.errors import DamagedError

GROUP = 64
LARGEST_CODE = 127
FEWEST_ROWS = 16
CODES, SCALE = ".int8", ".scale"
_COPY = "copy the model folder again from where it came"


def packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with every matrix as codes and scales.

    Raises:
        DamagedError: A matrix holds a number that is not finite.
    """
    return {name: part for whole in tensors.items() for name, part in _packed(*whole)}


def _packed(name: str, weight: Tensor) -> Iterator[tuple[str, Tensor]]:
    if weight.dim() != 2 or weight.shape[0] < FEWEST_ROWS or not weight.is_floating_point():
        yield name, weight.contiguous()
        return
    if not bool(weight.isfinite().all()):
        raise DamagedError(f"the tensor {name} holds numbers that are not finite", hint=_COPY)
    codes, scales = rounded(weight)
    yield name + CODES, codes.contiguous()
    yield name + SCALE, scales.contiguous()


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """`[rows, columns]` weights as int8 codes of the same shape and `[rows, groups]` scales.

    Rows that 64 does not divide are one group. A group of zeros has the scale 1.
    """
    rows, columns = weight.shape
    size = columns if columns % GROUP else GROUP
    grouped = weight.float().reshape(rows, columns // size, size)
    # As they will be opened, so that what was opened packs to the same codes and scales again.
    largest = grouped.abs().amax(-1, keepdim=True).to(torch.bfloat16).float()
    scales = largest / LARGEST_CODE
    scales = torch.where(scales > 0, scales, 1.0)
    codes = (grouped / scales).round().to(torch.int8)
    return codes.reshape(rows, columns), scales[..., 0]


def opened(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that `packed` was given, matrices in bfloat16; what is not packed, as it is.

    Raises:
        DamagedError: Codes or scales are missing, have shapes that do not belong together, or are
            not of their types.
    """
    whole: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name.endswith(CODES):
            weight = name.removesuffix(CODES)
            whole[weight] = _weights(weight, value, tensors.get(weight + SCALE))
        elif not name.endswith(SCALE):
            whole[name] = value
        elif name.removesuffix(SCALE) + CODES not in tensors:
            raise DamagedError(f"the scales {name} have no codes beside them", hint=_COPY)
    return whole


def _weights(name: str, codes: Tensor, scales: Tensor | None) -> Tensor:
    if scales is None:
        raise DamagedError(f"the codes {name}{CODES} have no scales beside them", hint=_COPY)
    if not _belong(codes, scales):
        raise DamagedError(
            f"{name}: codes {_told(codes)} and scales {_told(scales)} do not belong together",
            hint=_COPY,
        )
    groups = codes.reshape(*scales.shape, -1).to(torch.float32)
    return groups.mul_(scales[..., None]).to(torch.bfloat16).reshape(codes.shape)


def _belong(codes: Tensor, scales: Tensor) -> bool:
    """Whether scales are positive numbers, one for each of equal groups of every row."""
    return (
        (codes.dtype, scales.dtype) == (torch.int8, torch.float32)
        and codes.dim() == scales.dim() == 2
        and codes.shape[0] == scales.shape[0]
        and 0 < scales.shape[1] <= codes.shape[1]
        and codes.shape[1] % scales.shape[1] == 0
        and bool((scales.isfinite() & (scales > 0)).all())
    )


def _told(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
