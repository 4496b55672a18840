"""What travels: named tensors and what is said of them, as bytes without pickle.

A parcel is a safetensors file whose metadata has one entry, `about`, in JSON. Whoever receives one
takes nothing for granted: a parcel that is too large, or is none, is refused before a tensor is
made of it.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from consilience.errors import DamagedError

_MOST_HEADER = 16 * 1024 * 1024  # bytes; safetensors itself allows 100 MB


@dataclass(frozen=True, slots=True)
class Parcel:
    """Named tensors with what is said of them.

    Attributes:
        about: What JSON can hold.
        tensors: Of any shape and type, on the processor.
    """

    about: Mapping[str, Any]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    def pack(self) -> bytes:
        """What `unpack` reads."""
        plain = {name: value.detach().cpu().contiguous() for name, value in self.tensors.items()}
        about = json.dumps(self.about, ensure_ascii=False, allow_nan=False)
        packed: bytes = save(plain, metadata={"about": about})
        return packed

    @classmethod
    def unpack(cls, data: bytes, *, most: int | None = None) -> Self:
        """Read a parcel.

        Args:
            data: As `pack` made it.
            most: The largest number of bytes that is read; None for any.

        Raises:
            DamagedError: It is larger, or is no parcel.
        """
        if most is not None and len(data) > most:
            raise DamagedError(
                f"a message of {len(data)} bytes, at most {most} are read",
                hint="is it of a federation with another model?",
            )
        try:
            return cls(_about(data), load(data))
        except (SafetensorError, ValueError, KeyError, TypeError, struct.error) as error:
            raise DamagedError(
                f"a message of {len(data)} bytes that cannot be understood: {error}",
                hint="do all parties run the same version?",
            ) from error


def _about(data: bytes) -> Mapping[str, Any]:
    (length,) = struct.unpack_from("<Q", data)
    if length > _MOST_HEADER:
        raise ValueError(f"a header of {length} bytes")
    header = json.loads(data[8 : 8 + length])
    about = json.loads(header["__metadata__"]["about"])
    if not isinstance(about, dict):
        raise TypeError("what it is about is no table")
    return about
