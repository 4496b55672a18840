"""The envelopes of requests and replies: which run, which round, which party, and what is inside.

What a `Sealing` or a `Gathering` says is `content`, and is not looked into here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from torch import Tensor

from consilience.errors import DamagedError
from consilience.federation.contracts import Orders
from consilience.federation.parcels import Parcel

_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Message:
    """A request or a reply.

    Attributes:
        kind: What is asked for, or what this is.
        run: Name of the run; it is a name of a folder too.
        round: Number of the round; 0 before the first.
        party: Who is asked, or who answers.
        content: What is said.
        tensors: What comes with it.
        orders: Of the round, in requests of one.
    """

    kind: str
    run: str
    round: int
    party: str
    content: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    orders: Orders | None = None

    def pack(self) -> bytes:
        """What `unpack` reads."""
        about = {
            "kind": self.kind,
            "run": self.run,
            "round": self.round,
            "party": self.party,
            "content": dict(self.content),
        }
        if self.orders is not None:
            about["orders"] = self.orders.to_dict()
        return Parcel(about, self.tensors).pack()

    @classmethod
    def unpack(cls, data: bytes, *, most: int | None = None) -> Self:
        """Read a message.

        Args:
            data: As `pack` made it.
            most: The largest number of bytes that is read; None for any.

        Raises:
            DamagedError: It is larger, or is no message.
        """
        parcel = Parcel.unpack(data, most=most)
        about = parcel.about
        try:
            orders = Orders.parse(about["orders"]) if "orders" in about else None
            content = about["content"]
            if not isinstance(content, dict):
                raise TypeError("content is no table")
            return cls(
                kind=_text(about["kind"]),
                run=_run(about["run"]),
                round=_number(about["round"]),
                party=_text(about["party"]),
                content=content,
                tensors=parcel.tensors,
                orders=orders,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedError(
                f"a message without an envelope that can be understood ({type(error).__name__})",
                hint="do all parties run the same version?",
            ) from error

    @property
    def parcel(self) -> Parcel:
        """What is inside."""
        return Parcel(self.content, self.tensors)


def _text(found: Any) -> str:
    if not isinstance(found, str) or len(found) > 200:
        raise TypeError("no name")
    return found


def _run(found: Any) -> str:
    if not _RUN.fullmatch(_text(found)):
        raise ValueError("no name of a run")
    return str(found)


def _number(found: Any) -> int:
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        raise TypeError("no number of a round")
    return found
