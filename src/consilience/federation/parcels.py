"""What travels: named tensors and what is said of them, as bytes without pickle.

A parcel is a safetensors file whose metadata has one entry, `about`, in JSON. Whoever receives one
takes nothing for granted: a parcel that is too large, or is none, is refused before a tensor is
made of it; so is one whose `about` could be read here and written nowhere: numbers past 64 bits or
without end, half a surrogate pair, tables in tables in tables.
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from consilience.errors import DamagedError

_MOST_HEADER = 16 * 1024 * 1024  # bytes; safetensors itself allows 100 MB
_MOST_WHOLE = 2**64


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
        except RecursionError as error:
            raise DamagedError(
                f"a message of {len(data)} bytes whose tables stand in each other without end",
                hint="do all parties run the same version?",
            ) from error
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
    about = json.loads(
        header["__metadata__"]["about"],
        parse_constant=_finite,
        parse_float=_finite,
        parse_int=_whole,
    )
    if not isinstance(about, dict):
        raise TypeError("what it is about is no table")
    json.dumps(about, ensure_ascii=False).encode()  # half a surrogate pair is a ValueError
    return about


def _finite(written: str) -> float:
    if not math.isfinite(found := float(written)):
        raise ValueError(f"{written[:40]} is no finite number")
    return found


def _whole(written: str) -> int:
    if len(written) > 21 or abs(found := int(written)) > _MOST_WHOLE:
        raise ValueError(f"a number of {len(written)} digits")
    return found
