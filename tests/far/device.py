"""A second device for a machine that has none: `far`.

Its tensors lie in the processor's memory and say that they lie elsewhere. It is as strict as an
accelerator is: what mixes it with the processor, reads its memory as numpy or takes the numbers of
a random generator from elsewhere is refused, and so is float64, which Metal does not have. Torch
keeps a registered device for the rest of a process, so tests on it run in a process of their own.
"""

from typing import Any, Self, cast

import torch
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

NAME = "far"
_NO_FLOAT64 = "far has no float64, like Metal"


class Far(torch.Tensor):
    """A tensor of the far device around its numbers here."""

    near: torch.Tensor

    @staticmethod
    def __new__(cls, near: torch.Tensor) -> "Far":
        if near.dtype in (torch.float64, torch.complex128):
            raise TypeError(_NO_FLOAT64)
        with torch.inference_mode(False):  # a view of a tensor from outside that mode is none of it
            made = torch.Tensor._make_wrapper_subclass(
                cls,
                near.size(),
                strides=near.stride(),
                storage_offset=near.storage_offset(),
                dtype=near.dtype,
                device=torch.device(NAME, 0),
            )
        made.near = near
        return cast(Far, made)

    __torch_function__ = torch._C._disabled_torch_function_impl

    def tolist(self) -> Any:
        """Copied first, as torch does for every device."""
        return self.near.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """Refused, as for every device."""
        raise TypeError("can't convert a far tensor to numpy; use Tensor.cpu() first")

    def __array__(self, dtype: Any = None) -> Any:
        return self.numpy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copied = torch.Tensor.detach(self).clone().requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            copied = torch.nn.Parameter(copied, self.requires_grad)
        memo[id(self)] = copied
        return cast(Self, copied)

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"far {self.near!r}"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _computed(func, args, kwargs or {})


_CROSSING = {"_to_copy", "copy_", "_copy_from"}
"""What may read one device and write another."""


def _computed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What an operator gives, computed here, lying where it would lie."""
    name = func.overloadpacket.__name__
    given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
    far = [one for one in given if isinstance(one, Far)]
    # A number of no dimension is passed by value, on every device; so are the places of an index.
    places = tree_leaves(args[1]) if name.startswith(("index", "_index")) and len(args) > 1 else []
    passed = {id(one) for one in given if one.dim() == 0} | {id(one) for one in places}
    near = [one for one in given if not isinstance(one, Far) and id(one) not in passed]
    if far and near and name not in _CROSSING:
        shapes = [(str(one.device), tuple(one.shape)) for one in given]
        raise RuntimeError(f"{name} of tensors on two devices: {shapes}")
    wanted = kwargs.get("device")
    if wanted is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
        goes_far = torch.device(wanted).type == NAME
    else:
        goes_far = isinstance(args[0], Far) if name in _CROSSING else bool(far)
    here = tree_map(_near, (args, kwargs))
    found = func(*here[0], **here[1])
    if not goes_far:
        return found
    wrapped = tree_map(_far, found)
    return return_and_correct_aliasing(func, args, kwargs, wrapped) if far else wrapped


def _near(value: Any) -> Any:
    if isinstance(value, Far):
        return value.near
    if isinstance(value, torch.Generator):
        raise RuntimeError("expected a far generator, got one of cpu")
    return value


def _far(value: Any) -> Any:
    return Far(value) if isinstance(value, torch.Tensor) and not isinstance(value, Far) else value


class _Module(_DummyBackendModule):
    """What torch asks a device: `torch.far`."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """For autocast."""
        return [torch.bfloat16, torch.float16]


def register() -> torch.device:
    """Make torch know the far device, once in a process."""
    _setup_privateuseone_for_python_backend(NAME, _Module())
    # A moved weight stays the same object, as between real devices: what is tied stays tied.
    torch.__future__.set_swap_module_params_on_conversion(True)
    library = torch.library.Library("_", "IMPL")
    library.fallback(lambda func, *args, **kwargs: _computed(func, args, kwargs), "PrivateUse1")
    below = torch.library.Library("aten", "IMPL")  # what torch.tensor calls, where no fallback is
    below.impl("empty_strided", _empty, "PrivateUse1")
    below.impl("_copy_from", _copied, "PrivateUse1")
    _KEPT.append(below)
    _KEPT.append(library)
    return torch.device(NAME, 0)


def _empty(size: list[int], stride: list[int], **options: Any) -> Far:
    return Far(torch.empty_strided(size, stride, dtype=options.get("dtype")))


def _copied(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    _near(target).copy_(_near(source))
    return target


_KEPT: list[torch.library.Library] = []
"""A library takes back what it registered when it ends."""


def moved(inputs: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """The same elsewhere."""
    return {name: value.to(device) for name, value in inputs.items()}


def near(value: torch.Tensor) -> torch.Tensor:
    """What lies far, here."""
    assert value.device.type == NAME
    return value.cpu()
