"""A party's side of secure sums: masks over its update, and what it tells for one sum.

After Bonawitz et al. (2017), in two messages where they have four: keys are pinned beforehand, and
the check that all tell for the same sum is in the encryption. What a party tells, its shares of the
others' masks, is boxed with a key of its own; that key is shared with the parties of the sum, each
share boxed under a bond and the sum; and each party opens what others left for it, for the sum it
was asked for and for no other. So nothing that anybody tells can be read before `threshold` parties
have told for the very same sum. Since each party tells for one sum, and two thresholds overlap,
there is one sum.

A mask is never used for two updates, and an update is never in two different sums: see `memory`.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from consilience.errors import DamagedError, FingerprintError, UsageError
from consilience.federation.config import SecureSettings
from consilience.federation.contracts import Orders, Update
from consilience.federation.parcels import Parcel
from consilience.federation.secure.bonds import (
    Bond,
    Dealing,
    bonds_of,
    box_shares,
    deal,
    shared,
    unbox_shares,
)
from consilience.federation.secure.ciphers import Words, add_stream, box, derive, label
from consilience.federation.secure.keys import PartyKey, Roster
from consilience.federation.secure.memory import Attempt, Memory
from consilience.federation.secure.messages import Masked, Request, Told, unreadable
from consilience.federation.secure.terms import Terms
from consilience.federation.secure.words import METRICS, add_noise, encode

Shares = Mapping[str, tuple[bytes, ...]]
"""By who dealt them: own mask and masks with others, in the order of the parties."""


class SecureSealing:
    """Updates of which the coordinator reads nothing but their sum with others'.

    Args:
        name: Of this party.
        key: Its own.
        roster: Everybody's public keys, from a file of this party's own.
        state: Folder of its own, kept as long as the run lasts.
        config: Settings that all parties have alike.
        party_noise: Noise multiplier of the sum, of `PrivacySettings`; see `noise`.

    Raises:
        MissingError: The roster does not name this party.
        FingerprintError: The roster has another key for it.
    """

    def __init__(
        self,
        name: str,
        key: PartyKey,
        roster: Roster,
        state: Path,
        config: SecureSettings,
        *,
        party_noise: float = 0.0,
    ) -> None:
        if roster.key(name) != key.public:
            raise FingerprintError(
                f"the roster has the key {roster.key(name)!r} for {name!r}, whose own is "
                f"{key.public!r}",
                hint="give your public key to whoever makes the roster, and take the new roster",
            )
        self.name, self._key, self._roster, self._config = name, key, roster, config
        self._noise, self._memory = party_noise, Memory(state)

    @property
    def key(self) -> str:
        """The public key of the party."""
        return self._key.public

    def seal(self, update: Update, orders: Orders) -> Parcel:
        """The update under masks: y = words + own mask + Σ_(j after) mask_j - Σ_(j before) mask_j.

        The same update in the same attempt gives the same parcel. What is not in `words.METRICS`
        stays here, with the privacy spent and the time it took.

        Raises:
            UsageError: Orders that do not ask this party, or an update that cannot be sealed, or
                not in this attempt any more; see `memory`.
            MissingError: A party that the roster does not name.
        """
        shapes = {name: tuple(value.shape) for name, value in update.delta.items()}
        terms = Terms.of(orders, shapes, self._config, noise=self._noise)
        self._require_asked(orders)
        bonds = bonds_of(self.name, self._key, self._roster, terms)
        words = encode(update, terms)
        attempt = self._memory.begin(terms, _digest(update, terms))
        if terms.noise:
            add_noise(words, terms, attempt.noise)
        dealing = deal(self.name, bonds, terms, attempt.fresh)
        boxed = {
            other: box_shares(
                dealing.shares[other], bond, terms, self.name, other, fresh=attempt.fresh
            )
            for other, bond in bonds.items()
        }
        _mask(words, self.name, dealing)
        return Masked(self.name, terms.digest, dealing.tags, boxed, words).parcel(orders)

    def further(self, request: Parcel, orders: Orders) -> Parcel:
        """Tell what the sum of some parties needs; for one sum in a round, and no other.

        Told are this party's shares of the own masks of those in the sum, and of the masks between
        them and those that are not. Never told are own masks of those that are not in it, and masks
        between two that are. If shares cannot be opened, nothing is told but whose they are.

        Raises:
            UsageError: Nothing was sealed under these orders, or it was told for another sum.
            DamagedError: A request that no party may answer.
        """
        attempt = self._memory.recall(orders)
        asked = Request.parse(request, attempt.terms, party=self.name)
        bonds = bonds_of(self.name, self._key, self._roster, attempt.terms)
        dealing = deal(self.name, bonds, attempt.terms, attempt.fresh)
        opened = self._opened(asked, bonds, attempt.terms)
        if strange := [name for name in asked.shares if name not in opened]:
            return unreadable(self.name, strange)
        self._memory.tell(orders, asked.alive)
        return self._told(asked, attempt, bonds, {**opened, self.name: dealing.shares[self.name]})

    def _told(
        self, asked: Request, attempt: Attempt, bonds: Mapping[str, Bond], shares: Shares
    ) -> Parcel:
        body = json.dumps(_needed(asked, attempt.terms, shares)).encode()
        digest = hashlib.sha256(body).hexdigest()
        key = derive(attempt.fresh, "telling", asked.choice, digest)
        pieces = shared(key, attempt.terms, attempt.fresh, "telling", asked.choice, digest)
        others = [name for name in asked.alive if name != self.name]
        return Told(
            party=self.name,
            choice=asked.choice,
            body=box(key, derive(key, "nonce"), body, label("body", asked.choice, self.name)),
            own=pieces[attempt.terms.number(self.name)],
            pieces={
                other: box(
                    bonds[other].opening(asked.choice, self.name, other),
                    derive(key, "nonce", other),
                    pieces[attempt.terms.number(other)],
                    label("piece", asked.choice, self.name, other),
                )
                for other in others
            },
            openings={
                other: bonds[other].opening(asked.choice, other, self.name).hex()
                for other in others
            },
        ).parcel()

    def _opened(self, asked: Request, bonds: Mapping[str, Bond], terms: Terms) -> Shares:
        found = {}
        for dealer, boxed in asked.shares.items():
            try:
                found[dealer] = unbox_shares(boxed, bonds[dealer], terms, dealer, self.name)
            except DamagedError:
                continue  # told to the coordinator, by name
        return found

    def _require_asked(self, orders: Orders) -> None:
        if self.name not in orders.parties:
            raise UsageError(
                f"{self.name!r} is not among the parties of round {orders.round}: "
                f"{', '.join(orders.parties)}",
                hint="does the coordinator know this party by another name?",
            )


def _digest(update: Update, terms: Terms) -> str:
    """SHA-256 of all that is told of an update."""
    told = [
        f"{name}={float(update.metrics[name]).hex()}" for name in METRICS if name in update.metrics
    ]
    found = hashlib.sha256(label("update", float(update.weight).hex(), *told))
    for name, _ in terms.shapes:
        found.update(label(name))
        found.update(update.delta[name].detach().contiguous().numpy().data)
    return found.hexdigest()


def _mask(words: Words, name: str, dealing: Dealing) -> None:
    """Add the own mask and those with parties after `name`, take away those with parties before."""
    sign = -1
    for about, secret in dealing.secrets.items():
        sign = 1 if about == name else sign
        add_stream(words, secret, sign=sign)


def _needed(asked: Request, terms: Terms, shares: Shares) -> dict[str, list[str]]:
    """For each dealer in the sum: the share of its own mask, then of those with who is not."""
    numbers = {party: number for number, party in enumerate(terms.parties)}
    return {
        dealer: [shares[dealer][numbers[about]].hex() for about in (dealer, *asked.dropped)]
        for dealer in asked.alive
    }
