"""What a party learned for itself, on its own disk: personal weights and its control variates.

    own/round-N.safetensors     as they were after round N of a run

The round before is kept too, so that a round that is trained again, since the party was stopped
before it had answered, begins from what it began from.
"""

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from consilience.federation.contracts import Weights
from consilience.federation.durable import private_folder, write_whole
from consilience.federation.parcels import Parcel


class Belongings:
    """What a party keeps between rounds.

    Args:
        folder: Its own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def before(self, run: str, number: int) -> dict[str, Tensor]:
        """What it had before a round of a run; empty before the first."""
        found = [one for one in self._all() if one.about["run"] == run]
        return _newest([one for one in found if one.about["round"] < number])

    def newest(self) -> dict[str, Tensor]:
        """What it has."""
        return _newest(list(self._all()))

    def keep(self, run: str, number: int, values: Weights) -> None:
        """Write down what it has after a round; what is older than the round before goes."""
        private_folder(self.folder)
        path = self.folder / f"round-{number}.safetensors"
        write_whole(path, Parcel({"run": run, "round": number}, values).pack())
        kept = {(run, number), (run, self._last_before(run, number))}
        for old in self.folder.glob("round-*.safetensors"):
            about = Parcel.unpack(old.read_bytes()).about
            if (about["run"], about["round"]) not in kept:
                old.unlink()

    def _last_before(self, run: str, number: int) -> int:
        rounds = [one.about["round"] for one in self._all() if one.about["run"] == run]
        return max((one for one in rounds if one < number), default=0)

    def _all(self) -> Iterator[Parcel]:
        for path in sorted(self.folder.glob("round-*.safetensors")):
            yield Parcel.unpack(path.read_bytes())


def _newest(found: list[Parcel]) -> dict[str, Tensor]:
    last = max(found, key=lambda one: int(one.about["round"]), default=None)
    return {} if last is None else dict(last.tensors)
