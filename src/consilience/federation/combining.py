"""The updates of a round become one: opened, checked, shortened, and averaged.

A party whose update cannot be believed is left out with the reason, and the others count. Parties
are taken in the order of their names, so that the sum is the same whichever came first. What the
coordinator does with the mean is `stepping`'s.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from consilience.errors import ConsilienceError
from consilience.federation.config import FederationConfig
from consilience.federation.contracts import Ask, Gathered, Orders, Update, Weights
from consilience.federation.means import average, hostile_among, krum, length, median, trimmed
from consilience.federation.parcels import Parcel
from consilience.federation.payload import opened

CONTROL = "control/"
"""What names of control variates begin with (SCAFFOLD)."""

_FEWEST_FOR_KRUM = 3


class PlainGathering:
    """Sums of updates that the coordinator reads.

    Args:
        config: Of the federation.
    """

    def __init__(self, config: FederationConfig) -> None:
        self.mean = config.mean

    def gather(
        self,
        orders: Orders,
        sealed: Mapping[str, Parcel],
        weights: Weights,
        ask: Ask,  # noqa: ARG002 - of the protocol
    ) -> Gathered:
        """The mean of the updates that can be believed; `ask` is not needed.

        Raises:
            ConsilienceError: None is left, or too few for the mean.
        """
        shapes = {name: tuple(value.shape) for name, value in weights.items()}
        updates, refused = _believed(sealed, orders, shapes)
        if not updates:
            raise ConsilienceError(
                f"round {orders.round} has no update that counts: {_listed(refused)}",
                hint="look at the parties' own logs",
            )
        chosen = [self._shortened(updates[name]) for name in sorted(updates)]
        counts = [update.weight for update in chosen]
        return Gathered(
            delta=self._mean(orders, chosen),
            weight=sum(counts),
            metrics=_mean_metrics(chosen),
            refused=refused,
        )

    def _shortened(self, update: Update) -> Update:
        """The update, no longer than `mean.longest`; control variates are not measured."""
        longest = self.mean.longest
        found = length(_moved(update.delta))
        if longest is None or found <= longest:
            return update
        share = longest / found
        delta = {
            name: value if name.startswith(CONTROL) else value * share
            for name, value in update.delta.items()
        }
        return Update(delta, update.weight, update.metrics, update.epsilon, update.seconds)

    def _mean(self, orders: Orders, updates: Sequence[Update]) -> dict[str, Tensor]:
        kind = self.mean.kind
        if kind == "krum":
            updates = self._near(orders, updates)
        even = kind != "average"
        counts = [1.0 if even else update.weight for update in updates]
        if kind in ("average", "krum"):
            return {n: average([u.delta[n] for u in updates], counts) for n in orders.moving}
        return {n: self._middle([u.delta[n] for u in updates]) for n in orders.moving}

    def _middle(self, values: Sequence[Tensor]) -> Tensor:
        """The median or the trimmed mean of a weight, of its shape."""
        flat = torch.stack([value.reshape(-1) for value in values])
        if self.mean.kind == "median":
            return median(flat).reshape(values[0].shape)
        most = (len(values) - 1) // 2
        hostile = hostile_among(len(values), self.mean.hostile, most=most)
        return trimmed(flat, hostile=hostile).reshape(values[0].shape)

    def _near(self, orders: Orders, updates: Sequence[Update]) -> list[Update]:
        """The updates that Multi-Krum chooses."""
        if len(updates) < _FEWEST_FOR_KRUM:
            raise ConsilienceError(
                f"krum compares at least {_FEWEST_FOR_KRUM} updates, round {orders.round} has "
                f"{len(updates)}",
                hint="set mean.kind to median, or wait for more parties with expected",
            )
        flat = torch.stack([torch.cat([v.reshape(-1) for v in _moved(u.delta)]) for u in updates])
        most = (len(updates) - _FEWEST_FOR_KRUM) // 2
        hostile = hostile_among(len(updates), self.mean.hostile, most=most)
        return [updates[place] for place in krum(flat, hostile=hostile)]


def _believed(
    sealed: Mapping[str, Parcel], orders: Orders, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, Update], dict[str, str]]:
    updates, refused = {}, {}
    for name, parcel in sealed.items():
        try:
            updates[name] = opened(parcel, orders, shapes)
        except ConsilienceError as error:
            refused[name] = error.message
    return updates, refused


def _moved(delta: Weights) -> list[Tensor]:
    """The changes of weights, without control variates, in the order of their names."""
    return [delta[name] for name in sorted(delta) if not name.startswith(CONTROL)]


def _mean_metrics(updates: Sequence[Update]) -> dict[str, float]:
    """Means by weight, each over the parties that tell it."""
    found = {}
    for name in sorted({name for update in updates for name in update.metrics}):
        told = [(u.metrics[name], u.weight) for u in updates if name in u.metrics]
        total = sum(weight for _, weight in told)
        found[name] = sum(value * (weight / total) for value, weight in told)
    return found


def _listed(reasons: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {reasons[name]}" for name in sorted(reasons)) or "nobody answered"
