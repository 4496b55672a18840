"""What a party was asked and what it answered in the newest round of a run, on its own disk.

    joined.json            the recipe and the terms of the run
    round.json             the newest round, and a digest of what it began from
    update.safetensors     what was learned in it, as it never leaves
    reply-DIGEST           what was answered to the request of this digest

So the same request has the same answer, also after a restart; a round is trained once; and a round
that is over is not opened again.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from consilience.federation.contracts import Orders, Update, Weights
from consilience.federation.durable import read_table, write_table, write_whole
from consilience.federation.parcels import Parcel

_PREFIX = "reply-"


class Answered:
    """The journal of a run.

    Args:
        folder: Of this run alone.

    Attributes:
        round: The newest round that was begun; 0 before the first.
        began: Digest of what it began from.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        found = read_table(folder / "round.json") or {"round": 0, "began": ""}
        self.round: int = found["round"]
        self.began: str = found["began"]

    def joined(self) -> dict[str, Any] | None:
        """What `join` wrote; None before."""
        return read_table(self.folder / "joined.json")

    def join(self, terms: Mapping[str, Any]) -> None:
        """Write the terms of the run down."""
        write_table(self.folder / "joined.json", terms)

    def begin(self, round_: int, began: str) -> None:
        """Open a round; what was answered in the one before is over."""
        write_table(self.folder / "round.json", {"round": round_, "began": began})
        self.round, self.began = round_, began
        for old in (*self.folder.glob(f"{_PREFIX}*"), self._update):
            old.unlink(missing_ok=True)

    def reply(self, request: bytes) -> bytes | None:
        """What was answered to these bytes; None if they are new."""
        path = self._reply(request)
        return path.read_bytes() if path.is_file() else None

    def answer(self, request: bytes, reply: bytes) -> bytes:
        """Write an answer down before it is given."""
        write_whole(self._reply(request), reply)
        return reply

    def update(self) -> Update | None:
        """What was learned in this round; None while it was not."""
        if not self._update.is_file():
            return None
        found = Parcel.unpack(self._update.read_bytes())
        if (found.about["round"], found.about["began"]) != (self.round, self.began):
            return None
        return Update(found.tensors, **found.about["update"])

    def learned(self, update: Update) -> None:
        """Write down what was learned in this round, so that it is not learned twice."""
        said = {
            "weight": update.weight,
            "metrics": dict(update.metrics),
            "epsilon": update.epsilon,
            "seconds": update.seconds,
        }
        about = {"round": self.round, "began": self.began, "update": said}
        write_whole(self._update, Parcel(about, update.delta).pack())

    @property
    def _update(self) -> Path:
        return self.folder / "update.safetensors"

    def _reply(self, request: bytes) -> Path:
        return self.folder / f"{_PREFIX}{hashlib.sha256(request).hexdigest()}"


def beginning(orders: Orders, weights: Weights) -> str:
    """A digest of what a round begins from: the weights, and which of them learn."""
    found = hashlib.sha256(repr(orders.moving).encode())
    for name in sorted(weights):
        value = weights[name].contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.numpy().tobytes())
    return found.hexdigest()
