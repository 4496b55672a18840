"""What a party remembers of secure sums, so that no restart and no coordinator undoes a promise.

One file for each run holds the newest round and attempt: the terms, the digest of what was sealed,
the random bytes behind the masks, and the choice of parties that was told for. It is written before
anything leaves that depends on it. The promises:

- A round has one update, in all its attempts, and each attempt has fresh masks. With two updates a
  coordinator could learn how one of them differs from the other.
- A round has one choice of parties that is told for, in all its attempts. Two sums of the same
  updates that differ by a party would give that party away.
- Rounds and attempts never go back. What older ones had is gone from the disk.
"""

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from consilience.errors import BusyError, DamagedError, UsageError
from consilience.federation.contracts import Orders
from consilience.federation.durable import PRIVATE_FILE, private_folder, write_table
from consilience.federation.secure.ciphers import SIZE
from consilience.federation.secure.terms import Terms
from consilience.retrieval.derived import exclusive

_PATIENCE = 30.0  # seconds


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt at a round, as a party remembers it.

    Attributes:
        terms: That it was sealed under.
        sealed: Digest of the update that was sealed.
        fresh: 32 random bytes behind all that is random in it.
        noise: 32 random bytes behind the noise, the same in all attempts of a round: the mean of
            two sums with noise of their own would have less of it.
        told: Parties for whose sum it has told, in this attempt or an earlier one; empty if none.
    """

    terms: Terms
    sealed: str
    fresh: bytes = field(repr=False)
    noise: bytes = field(repr=False)
    told: tuple[str, ...] = ()

    @property
    def place(self) -> tuple[int, int]:
        """Round and attempt."""
        return self.terms.orders.round, self.terms.orders.attempt

    def to_dict(self) -> dict[str, Any]:
        """Fit for JSON."""
        return {
            "terms": self.terms.to_dict(),
            "sealed": self.sealed,
            "fresh": self.fresh.hex(),
            "noise": self.noise.hex(),
            "told": list(self.told),
        }

    @classmethod
    def parse(cls, found: Mapping[str, Any]) -> Self:
        """What `to_dict` made; raises KeyError, TypeError or ValueError where it is not."""
        return cls(
            terms=Terms.parse(found["terms"]),
            sealed=str(found["sealed"]),
            fresh=bytes.fromhex(found["fresh"]),
            noise=bytes.fromhex(found["noise"]),
            told=tuple(map(str, found["told"])),
        )


class Memory:
    """The memory of one party.

    Args:
        folder: Of its own; nobody else may read it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, terms: Terms, sealed: str) -> Attempt:
        """The attempt in which the update with this digest is sealed: a known one, or a new one.

        Raises:
            UsageError: It would break a promise.
            BusyError: Another process of this party does not let go.
            DamagedError: The file is not what it was.
        """
        with self._held(terms.orders.run) as path:
            last = _read(path)
            attempt = _next(last, terms, sealed)
            if attempt is not last:
                write_table(path, attempt.to_dict())
            return attempt

    def recall(self, orders: Orders) -> Attempt:
        """The attempt of these orders.

        Raises:
            UsageError: This party has sealed nothing under them, or something newer.
            BusyError, DamagedError: As for `begin`.
        """
        with self._held(orders.run) as path:
            return _of(_read(path), orders)

    def tell(self, orders: Orders, alive: Sequence[str]) -> None:
        """Note that this party tells for the sum of these; once it is noted, for no others.

        Raises:
            UsageError: It has told for others in this round.
            BusyError, DamagedError: As for `begin`.
        """
        with self._held(orders.run) as path:
            attempt = _of(_read(path), orders)
            if not attempt.told:
                write_table(path, replace(attempt, told=tuple(sorted(alive))).to_dict())
            elif attempt.told != tuple(sorted(alive)):
                raise UsageError(
                    f"in round {orders.round} this party has told for the sum of "
                    f"{', '.join(attempt.told)}, and tells for no other",
                    hint="ask for the same sum again, or begin the next round",
                )

    @contextmanager
    def _held(self, run: str) -> Iterator[Path]:
        name = hashlib.sha256(run.encode()).hexdigest()[:32]
        lock = private_folder(self._folder) / f"{name}.lock"
        lock.touch(mode=PRIVATE_FILE)
        with exclusive(lock, patience=_PATIENCE) as obtained:
            if not obtained:
                raise BusyError(
                    f"another process of this party holds {lock}",
                    hint="run one process for each party",
                )
            yield self._folder / f"{name}.json"


def _next(last: Attempt | None, terms: Terms, sealed: str) -> Attempt:
    place = terms.orders.round, terms.orders.attempt
    if last is None or place[0] > last.place[0]:
        return Attempt(terms, sealed, _random(), _random())
    if place < last.place:
        raise UsageError(
            f"round {place[0]}, attempt {place[1]} is over: this party is at round "
            f"{last.place[0]}, attempt {last.place[1]}",
            hint="go on from there; masks are never used again",
        )
    if last.sealed != sealed:
        raise UsageError(
            f"round {place[0]} has been sealed by this party with another update",
            hint="send the same weights again, or begin the next round",
        )
    if place > last.place and (not terms.noise or _alike(last.terms, terms)):
        return Attempt(terms, sealed, _random(), last.noise, last.told)
    if last.terms != terms:
        raise UsageError(
            f"round {place[0]}, attempt {last.place[1]} has been sealed by this party with other "
            "orders",
            hint="begin the next attempt, or with noise the next round; nothing is used again",
        )
    return last


def _alike(one: Terms, other: Terms) -> bool:
    """Whether they differ in nothing but the attempt."""
    return replace(one, orders=replace(one.orders, attempt=other.orders.attempt)) == other


def _random() -> bytes:
    return secrets.token_bytes(SIZE)


def _of(last: Attempt | None, orders: Orders) -> Attempt:
    if last is None or last.terms.orders != orders:
        raise UsageError(
            f"this party has sealed nothing under these orders of round {orders.round}, attempt "
            f"{orders.attempt}",
            hint="ask only for rounds that were sealed, under the orders they were sealed under",
        )
    return last


def _read(path: Path) -> Attempt | None:
    if not path.is_file():
        return None
    try:
        return Attempt.parse(json.loads(path.read_text(encoding="utf-8")))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedError(
            f"{path} is no memory of secure sums",
            hint="take part in this run no more; a new run begins a new file",
        ) from error
