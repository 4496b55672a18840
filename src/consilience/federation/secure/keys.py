"""The key of a party, and the roster that pins everybody's.

A party makes its own key where it stays, and gives away the public half. The roster names the
public halves of all; every party holds a copy of its own and trusts no other source, least of all
the coordinator. Two people who read the roster's fingerprint to each other know that they hold the
same.
"""

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from consilience.errors import (
    DamagedError,
    FingerprintError,
    MissingError,
    UsageError,
)
from consilience.federation.places import private_file
from consilience.federation.secure.ciphers import SIZE, label, needed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class PartyKey:
    """An X25519 key (RFC 7748).

    Attributes:
        secret: 32 bytes, which never leave the party.
    """

    secret: bytes = field(repr=False)

    @property
    def public(self) -> str:
        """The half that everybody may know, as it stands in a roster."""
        return self._private().public_key().public_bytes_raw().hex()

    def agree(self, other: str) -> bytes:
        """What this key and another's public half have in common, and nobody else knows.

        Raises:
            DamagedError: The other is no public key, or one that agrees with every key alike.
        """
        with needed():
            from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
        try:
            known = X25519PublicKey.from_public_bytes(bytes.fromhex(other))
            return self._private().exchange(known)
        except ValueError as error:
            raise DamagedError(
                f"{other!r} is no public key of a party",
                hint="compare the roster with what the party gave away",
            ) from error

    def write(self, path: Path) -> None:
        """Write it to a new file that only its owner can read.

        Raises:
            UsageError: There is a file already, or none can be made.
        """
        try:
            private_file(path, f"{self.secret.hex()}\n".encode("ascii"), new=True)
        except OSError as error:
            raise UsageError(
                f"the key {path} cannot be written: {error.strerror}",
                hint="a key is never written over; name a new file",
            ) from error

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote.

        Raises:
            MissingError: There is none, or it cannot be read.
            UsageError: Others can read it too.
            DamagedError: It holds no key.
        """
        try:
            mode, text = path.stat().st_mode, path.read_text(encoding="ascii", errors="replace")
        except OSError as error:
            raise MissingError(
                f"the key {path} cannot be read: {error.strerror}",
                hint="make the keys of this party with: consilience federate keys",
            ) from error
        if mode & 0o077:
            raise UsageError(
                f"the key {path} can be read by others", hint=f"type: chmod 600 {path}"
            )
        return cls(_secret(text, path))

    def _private(self) -> "X25519PrivateKey":
        with needed():
            from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
        return X25519PrivateKey.from_private_bytes(self.secret)


def new_party_key() -> PartyKey:
    """A key that nobody ever had."""
    return PartyKey(secrets.token_bytes(SIZE))


@dataclass(frozen=True, slots=True)
class Roster:
    """The public key of every party.

    Attributes:
        keys: Public keys by name, as `PartyKey.public` gives them.

    Raises:
        UsageError: A key that is none, a party without a name, or two parties with one key.
    """

    keys: Mapping[str, str]

    def __post_init__(self) -> None:
        owners: dict[str, str] = {}
        for name, key in self.keys.items():
            if not name or not _is_key(key):
                raise UsageError(
                    f"the key of {name!r} in the roster is no public key: {key!r}",
                    hint="a public key is 64 hexadecimal digits; ask the party for its own",
                )
            if key in owners:
                raise UsageError(
                    f"{owners[key]!r} and {name!r} have the same key in the roster",
                    hint="each party makes a key of its own",
                )
            owners[key] = name

    @property
    def fingerprint(self) -> str:
        """What parties compare by telephone: SHA-256 of all names and keys."""
        pairs = [[name, key] for name, key in sorted(self.keys.items())]
        return hashlib.sha256(label("roster", *pairs)).hexdigest()

    def key(self, name: str) -> str:
        """The pinned key of a party.

        Raises:
            MissingError: The roster does not name it.
        """
        if name not in self.keys:
            raise MissingError(
                f"the roster does not name {name!r}, only {', '.join(sorted(self.keys))}",
                hint="take part with the parties of the roster, or agree on a new one",
            )
        return self.keys[name]

    def verify(self, claimed: Mapping[str, str]) -> None:
        """Compare with the keys that somebody else claims, such as the coordinator.

        Raises:
            MissingError: A party that the roster does not name.
            FingerprintError: Another key than the pinned one.
        """
        for name, key in claimed.items():
            if self.key(name) != key:
                raise FingerprintError(
                    f"{name!r} is claimed to have the key {key!r}, pinned is {self.keys[name]!r}",
                    hint="do not go on; ask the party itself which key is its own",
                )

    def write(self, path: Path) -> None:
        """Write it, with its fingerprint."""
        about = {"format": _FORMAT, "keys": dict(self.keys), "fingerprint": self.fingerprint}
        path.write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote.

        Raises:
            MissingError: There is none, or it cannot be read.
            DamagedError: It is none, or was changed since its fingerprint was taken.
            UsageError: As for any roster.
        """
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            roster, fingerprint = cls(_keys(found)), found["fingerprint"]
        except OSError as error:
            raise MissingError(
                f"the roster {path} cannot be read: {error.strerror}",
                hint="make one with: consilience federate keys",
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DamagedError(
                f"{path} is no roster", hint="ask whoever made it for a new copy"
            ) from error
        if fingerprint != roster.fingerprint:
            raise DamagedError(
                f"the roster {path} is not what its fingerprint says",
                hint="ask whoever made it for a new copy, and compare fingerprints by telephone",
            )
        return roster


def _keys(found: Any) -> dict[str, str]:
    if found["format"] != _FORMAT:
        raise ValueError("another format")
    return {str(name): str(key) for name, key in found["keys"].items()}


def _is_key(text: str) -> bool:
    return len(text) == 2 * SIZE and not set(text) - set("0123456789abcdef")


def _secret(text: str, path: Path) -> bytes:
    if not _is_key(text.strip()):
        raise DamagedError(
            f"{path} holds no key of a party",
            hint="make a new one with: consilience federate keys",
        )
    return bytes.fromhex(text.strip())
