"""What two parties share in one attempt, and what a party deals out in it.

All of it follows from the long-term keys, the terms of the attempt and 32 random bytes of the
party, its `fresh` ones: dealt again from the same bytes it is the same, and with others nothing is.

    bond      HKDF(X25519(own, other), terms, both names): the same for both, for this attempt only
    mask      of a bond: the seed that one adds and the other takes away
    own mask  of `fresh`: the seed that is added on top, so that masks of a party that was given up
              and answers late are not all known
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from consilience.federation.secure import shamir
from consilience.federation.secure.ciphers import box, derive, label, stream, tag, unbox
from consilience.federation.secure.keys import PartyKey, Roster
from consilience.federation.secure.terms import Terms


@dataclass(frozen=True, slots=True)
class Bond:
    """What two parties share in one attempt.

    Attributes:
        root: 32 bytes; never told to anybody.
    """

    root: bytes = field(repr=False)

    @property
    def mask(self) -> bytes:
        """Seed of the mask between them; told when one of them dropped out."""
        return derive(self.root, "mask")

    def shares(self, sender: str, receiver: str) -> bytes:
        """Key of the shares that one sends the other."""
        return derive(self.root, "shares", sender, receiver)

    def opening(self, choice: str, sender: str, receiver: str) -> bytes:
        """Key of a piece that one leaves for the other to open, if it tells for the same choice."""
        return derive(self.root, "opening", choice, sender, receiver)


@dataclass(frozen=True, slots=True)
class Dealing:
    """What a party deals out in an attempt.

    Attributes:
        secrets: Seed of its own mask by its own name, seeds of its masks with others by theirs, in
            the order of the parties.
        shares: For each receiver its share of each of these secrets, in the same order.
    """

    secrets: Mapping[str, bytes] = field(repr=False)
    shares: Mapping[str, tuple[bytes, ...]] = field(repr=False)

    @property
    def tags(self) -> dict[str, str]:
        """What tells each secret from any other."""
        return {about: tag(secret) for about, secret in self.secrets.items()}


def bonds_of(name: str, key: PartyKey, roster: Roster, terms: Terms) -> dict[str, Bond]:
    """The bonds of a party with all others of an attempt, by their names.

    Raises:
        MissingError: The roster does not name one of them.
        DamagedError: The roster holds a key that is none.
    """
    found = {}
    for other in terms.others(name):
        names = sorted((name, other))
        common = key.agree(roster.key(other))
        found[other] = Bond(derive(common, "bond", terms.digest, *names))
    return found


def deal(name: str, bonds: Mapping[str, Bond], terms: Terms, fresh: bytes) -> Dealing:
    """Secrets of a party and everybody's shares of them."""
    own = derive(fresh, "own mask")
    secrets = {other: own if other == name else bonds[other].mask for other in terms.parties}
    split = {about: shared(secret, terms, fresh, about) for about, secret in secrets.items()}
    shares = {
        receiver: tuple(split[about][terms.number(receiver)] for about in terms.parties)
        for receiver in terms.parties
    }
    return Dealing(secrets, shares)


def shared(secret: bytes, terms: Terms, fresh: bytes, *about: str) -> dict[int, bytes]:
    """Everybody's share of a secret, by number.

    Args:
        secret: 32 bytes.
        terms: Of the attempt.
        fresh: Where coefficients come from.
        about: What the secret is for; another purpose, other coefficients.
    """
    size = shamir.COEFFICIENT
    bits = stream(derive(fresh, "coefficients", *about), size * (terms.threshold - 1))
    random = [bits[start : start + size] for start in range(0, len(bits), size)]
    return shamir.split(secret, range(1, len(terms.parties) + 1), random)


def box_shares(shares: Sequence[bytes], bond: Bond, terms: Terms, *ends: str, fresh: bytes) -> str:
    """Shares for one party only; `ends` are sender and receiver."""
    nonce = derive(fresh, "nonce of shares", *ends)
    about = label("shares", terms.digest, *ends)
    return box(bond.shares(*ends), nonce, b"".join(shares), about)


def unbox_shares(boxed: str, bond: Bond, terms: Terms, *ends: str) -> tuple[bytes, ...]:
    """What `box_shares` hid.

    Raises:
        DamagedError: It is of another attempt, sender or receiver, or was changed.
    """
    found = unbox(bond.shares(*ends), boxed, label("shares", terms.digest, *ends))
    size = shamir.SHARE
    return tuple(found[start : start + size] for start in range(0, len(found), size))
