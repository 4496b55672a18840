"""Products of few rows, with matrices read in half the bytes.

To multiply one question's tokens, or one step of an answer, with a matrix takes a processor as long
as reading the matrix does. Where float16 holds every number of a matrix, as it does those of the
weights that ship, a copy in it gives the same products in half of that time or less: what comes in
and what is summed stay float32, and only the order of the sums is another.

The copy is made when somebody asks for it, since making it takes as long as some questions do. It
serves while the weight is the one that was copied and nothing learns; a module that is trained,
moved or given other weights multiplies as any other does.
"""

from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

FEW_ROWS = 64
"""With more rows the library's own product is as fast: it is no longer the reading that counts."""


class NarrowMatrix:
    """A matrix and its copy in float16, laid out for products of few rows.

    Args:
        weight: `[out, in]`, float32, on a processor.
        bias: `[out]`.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._version = weight, weight._version
        self._bias = bias
        self._bias_version = None if bias is None else bias._version
        self._packed = torch.ops.quantized.linear_prepack_fp16(
            weight.detach(), None if bias is None else bias.detach()
        )

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None = None) -> "NarrowMatrix | None":
        """The copy of a matrix; None where it would be another matrix, or cannot be multiplied."""
        if weight.dtype != torch.float32 or weight.device.type != "cpu":
            return None
        if "fbgemm" not in torch.backends.quantized.supported_engines:
            return None
        exact = bool((weight.detach().half() == weight.detach()).all())
        return cls(weight, bias) if exact else None

    def serves(self, weight: Tensor, bias: Tensor | None, rows: Tensor) -> bool:
        """Whether a product of rows, `[..., in]`, with a weight may be left to the copy."""
        return (
            torch.is_inference_mode_enabled()
            and weight is self._weight
            and bias is self._bias
            and weight._version == self._version
            and (bias is None or bias._version == self._bias_version)
            and rows.dtype == torch.float32
            and 0 < rows.numel() <= FEW_ROWS * rows.shape[-1]
            and not torch.is_autocast_enabled("cpu")
        )

    def product(self, rows: Tensor) -> Tensor:
        """`rows @ weight.T + bias`, `[..., in]` to `[..., out]`, float32."""
        found: Tensor = torch.ops.quantized.linear_dynamic_fp16(rows, self._packed)
        return found


class Narrowable(nn.Module):
    """A module with a matrix that it may hold narrow."""

    _narrow: NarrowMatrix | None = None

    def matrix(self) -> tuple[Tensor, Tensor | None]:
        """The matrix, `[out, in]`, and what is added to its products, `[out]`."""
        raise NotImplementedError

    def product(self, rows: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        weight, bias = self.matrix()
        if self._narrow is not None and self._narrow.serves(weight, bias, rows):
            return self._narrow.product(rows)
        return functional.linear(rows, weight, bias)

    def narrow(self) -> None:
        """Hold the matrix narrow from here on, if that leaves its numbers as they are."""
        self._narrow = NarrowMatrix.of(*self.matrix())

    def train(self, mode: bool = True) -> Self:
        """As any module's; what learns is not held twice."""
        if mode:
            self._narrow = None
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self._narrow = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


@runtime_checkable
class ForMany(Protocol):
    """What can get ready for many questions; it takes as long as a question or two."""

    def narrow(self) -> None:
        """Hold its matrices narrow where that leaves their numbers as they are."""
        ...


class Linear(Narrowable, nn.Linear):
    """An affine layer that may hold its matrix narrow."""

    def matrix(self) -> tuple[Tensor, Tensor | None]:
        """Its weight and bias."""
        return self.weight, self.bias

    def forward(self, rows: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        return self.product(rows)

    def plain(self) -> nn.Linear:
        """The same weights in a layer of torch's own type, for what asks for that very type."""
        layer = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        layer.weight = self.weight
        layer.bias = self.bias
        return layer


def narrow(*modules: nn.Module) -> None:
    """Have every matrix in these modules that can be held narrow be so."""
    for module in modules:
        for part in module.modules():
            if isinstance(part, Narrowable):
                part.narrow()
