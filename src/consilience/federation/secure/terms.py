"""What all who take part in one attempt at a round agree on, and its digest.

Every key of the attempt is derived with the digest. A party that was told other orders, another
threshold or other shapes than the rest has other keys: its masks cancel nobody's, and it opens no
share. So a coordinator that tells different parties different things gets nothing out of it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from consilience.errors import UsageError
from consilience.federation.config import SecureSettings
from consilience.federation.contracts import Orders
from consilience.federation.secure.noise import MOST_NOISE

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Names and shapes, in the order of `Orders.moving`."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What is agreed on.

    Attributes:
        orders: Of the round; its attempt is that of these terms.
        shapes: Of the weights that move.
        threshold: Parties that must stay to the end.
        longest: Largest absolute value of a weight's change; with noise, of all of it.
        noise: Noise multiplier of the sum; 0 is none.
    """

    orders: Orders
    shapes: Shapes
    threshold: int
    longest: float
    noise: float = 0.0

    @classmethod
    def of(
        cls,
        orders: Orders,
        shapes: Mapping[str, tuple[int, ...]],
        config: SecureSettings,
        *,
        noise: float = 0.0,
    ) -> Self:
        """The terms that follow from orders and settings.

        Raises:
            UsageError: Parties that are named twice, weights without a shape, more noise than
                fits, or a threshold that these parties cannot meet or two halves of them could.
        """
        if not 0 <= noise <= MOST_NOISE:
            raise UsageError(
                f"privacy.party_noise is {noise:g}, which is not between 0 and {MOST_NOISE:g}",
                hint="set privacy.party_noise to 0 for none, or to 1 or a few",
            )
        if missing := [name for name in orders.moving if name not in shapes]:
            raise UsageError(
                f"round {orders.round} moves {', '.join(missing[:3])}, of which there is no change",
                hint="coordinator and parties must agree on travel.kind",
            )
        if len(set(orders.parties)) < len(orders.parties):
            raise UsageError(
                f"round {orders.round} names a party twice: {', '.join(orders.parties)}",
                hint="each party takes part once",
            )
        known = tuple((name, tuple(shapes[name])) for name in orders.moving)
        threshold = threshold_of(len(orders.parties), config)
        return cls(orders, known, threshold, float(config.longest), float(noise))

    @property
    def parties(self) -> tuple[str, ...]:
        """Who is asked."""
        return self.orders.parties

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        words = json.dumps(self.to_dict(), ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(words.encode()).hexdigest()

    def number(self, party: str) -> int:
        """The number of a party's shares, from 1."""
        return self.parties.index(party) + 1

    def others(self, party: str) -> tuple[str, ...]:
        """All but one."""
        return tuple(other for other in self.parties if other != party)

    def to_dict(self) -> dict[str, Any]:
        """Fit for JSON."""
        return {
            "orders": self.orders.to_dict(),
            "shapes": [[name, list(shape)] for name, shape in self.shapes],
            "threshold": self.threshold,
            "longest": self.longest,
            "noise": self.noise,
        }

    @classmethod
    def parse(cls, found: Mapping[str, Any]) -> Self:
        """What `to_dict` made; raises KeyError, TypeError or ValueError where it is not."""
        shapes = tuple((str(name), tuple(map(int, shape))) for name, shape in found["shapes"])
        return cls(
            orders=Orders.parse(found["orders"]),
            shapes=shapes,
            threshold=int(found["threshold"]),
            longest=float(found["longest"]),
            noise=float(found["noise"]),
        )


def threshold_of(parties: int, config: SecureSettings) -> int:
    """How many of so many parties must stay to the end: two thirds, unless settings say otherwise.

    More than half, always: two sets of parties that large have a party in common, which answers for
    one of them only.

    Raises:
        UsageError: Fewer than two parties, or settings that ask for more than there are, or for no
            more than half.
    """
    if parties < 2:
        raise UsageError(
            f"secure sums of {parties} party: a sum of one hides nothing",
            hint="wait for more parties, or do without with secure.sums=false",
        )
    threshold = config.threshold if config.threshold is not None else max(2, -(-2 * parties // 3))
    if threshold > parties:
        raise UsageError(
            f"secure.threshold is {threshold}, but only {parties} parties are asked",
            hint=f"wait for {threshold} parties, or set secure.threshold to {parties} at most",
        )
    if 2 * threshold <= parties:
        raise UsageError(
            f"secure.threshold is {threshold} of {parties} parties: two halves could be made to "
            "tell two sums apart",
            hint=f"set secure.threshold to {parties // 2 + 1} at least",
        )
    return threshold
