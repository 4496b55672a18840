"""What passes in the two messages of a round, read by somebody who believes none of it.

masked      party → coordinator    words under masks; shares, each for one party only
request     coordinator → party    who is in the sum and who is not; the shares that are for it
told        party → coordinator    what it tells for this sum, in a form that opens only together
                                   with what enough others tell for the same sum
unreadable  party → coordinator    whose shares it could not open; nothing was told
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch

from consilience.errors import DamagedError
from consilience.federation.contracts import Orders
from consilience.federation.parcels import Parcel
from consilience.federation.secure.ciphers import SIZE, Words, label
from consilience.federation.secure.shamir import SHARE
from consilience.federation.secure.terms import Terms

_BOXED = 12 + 16  # bytes of nonce and tag
_PIECE = SHARE + _BOXED


@dataclass(frozen=True, slots=True)
class Masked:
    """The first message of a party.

    Attributes:
        party: Who sealed it.
        terms: Digest of the terms it was sealed under.
        tags: Of its own mask by its own name, of its masks with others by theirs.
        shares: For every other party, boxed.
        words: Words [length] under all masks.
    """

    party: str
    terms: str
    tags: Mapping[str, str]
    shares: Mapping[str, str]
    words: Words

    def parcel(self, orders: Orders) -> Parcel:
        """As it travels; the numbers of run, round and attempt are for whoever reads a log."""
        about = {
            "form": "masked",
            "run": orders.run,
            "round": orders.round,
            "attempt": orders.attempt,
            "party": self.party,
            "terms": self.terms,
            "tags": dict(self.tags),
            "shares": dict(self.shares),
        }
        return Parcel(about, {"words": torch.from_numpy(self.words.view(np.int32))})

    @classmethod
    def parse(cls, parcel: Parcel, terms: Terms, *, party: str, length: int) -> Self:
        """Read what a party sealed.

        Raises:
            DamagedError: It is of another round, of other terms, or not whole; the message is the
                reason.
        """
        about = parcel.about
        _require_form(about, "masked", party)
        orders = terms.orders
        place = about.get("run"), about.get("round"), about.get("attempt")
        if place != (orders.run, orders.round, orders.attempt):
            raise _refused(
                f"it is of run {place[0]!r}, round {place[1]!r}, attempt {place[2]!r}, a replay in "
                f"round {orders.round}, attempt {orders.attempt}"
            )
        if about.get("terms") != terms.digest:
            raise _refused("it was sealed under other orders or settings")
        tags = _hexadecimal(about.get("tags"), terms.parties, SIZE)
        size = SHARE * len(terms.parties) + _BOXED
        shares = _hexadecimal(about.get("shares"), terms.others(party), size)
        return cls(party, terms.digest, tags, shares, _words(parcel, length))


@dataclass(frozen=True, slots=True)
class Request:
    """What the coordinator asks of a party for a sum.

    Attributes:
        terms: Digest of the terms.
        alive: Who is in the sum, in the order of the parties.
        dropped: Who is not.
        shares: Boxed shares for the party that is asked, by who dealt them.
    """

    terms: str
    alive: tuple[str, ...]
    dropped: tuple[str, ...]
    shares: Mapping[str, str]

    @property
    def choice(self) -> str:
        """What parties that tell for the same sum have in common."""
        return label("choice", self.terms, [*self.alive], [*self.dropped]).decode()

    def parcel(self) -> Parcel:
        """As it travels."""
        return Parcel(
            {
                "form": "request",
                "terms": self.terms,
                "alive": list(self.alive),
                "dropped": list(self.dropped),
                "shares": dict(self.shares),
            }
        )

    @classmethod
    def parse(cls, parcel: Parcel, terms: Terms, *, party: str) -> Self:
        """Read what the coordinator asks of `party`, who sealed under `terms`.

        Raises:
            DamagedError: No party may answer that; the message says why.
        """
        about = parcel.about
        if about.get("form") != "request" or about.get("terms") != terms.digest:
            raise _asked("it is of another round, attempt or orders than this party sealed under")
        alive, dropped = _names(about.get("alive")), _names(about.get("dropped"))
        _require_parts(alive, dropped, terms)
        if party not in alive:
            raise _asked(f"it counts {party!r} itself among those that dropped out")
        if len(alive) < terms.threshold:
            raise _asked(f"a sum of {len(alive)} parties, at least {terms.threshold} hide each one")
        senders = [name for name in alive if name != party]
        size = SHARE * len(terms.parties) + _BOXED
        shares = _hexadecimal(about.get("shares"), senders, size)
        order = terms.parties.index
        return cls(
            terms.digest,
            tuple(sorted(alive, key=order)),
            tuple(sorted(dropped, key=order)),
            shares,
        )


@dataclass(frozen=True, slots=True)
class Told:
    """The second message of a party.

    Attributes:
        party: Who tells.
        choice: For which sum.
        body: Its shares of what must be known, boxed with a key of its own.
        own: Its own share of that key.
        pieces: The shares of that key of the others in the sum, boxed for each of them.
        openings: The keys of the pieces that the others left for it, for this choice only.
    """

    party: str
    choice: str
    body: str
    own: bytes
    pieces: Mapping[str, str]
    openings: Mapping[str, str]

    def parcel(self) -> Parcel:
        """As it travels."""
        return Parcel(
            {
                "form": "told",
                "party": self.party,
                "choice": self.choice,
                "body": self.body,
                "own": self.own.hex(),
                "pieces": dict(self.pieces),
                "openings": dict(self.openings),
            }
        )

    @classmethod
    def parse(cls, parcel: Parcel, request: Request, *, party: str) -> Self:
        """Read what a party told.

        Raises:
            DamagedError: It is for another sum, or not whole; the message is the reason.
        """
        about = parcel.about
        _require_form(about, "told", party)
        if about.get("choice") != request.choice:
            raise _refused("it is told for another sum")
        others = [name for name in request.alive if name != party]
        own = _hexadecimal({"own": about.get("own")}, ["own"], SHARE)["own"]
        return cls(
            party=party,
            choice=request.choice,
            body=str(about.get("body")),
            own=bytes.fromhex(own),
            pieces=_hexadecimal(about.get("pieces"), others, _PIECE),
            openings=_hexadecimal(about.get("openings"), others, SIZE),
        )


def unreadable(party: str, dealers: list[str]) -> Parcel:
    """A party could not open the shares that these dealt."""
    return Parcel({"form": "unreadable", "party": party, "parties": dealers})


def complaints(parcel: Parcel, request: Request, *, party: str) -> tuple[str, ...]:
    """Whose shares a party could not open; empty if that is not what it says."""
    found = parcel.about.get("parties")
    if parcel.about.get("form") != "unreadable" or not isinstance(found, list):
        return ()
    return tuple(name for name in request.alive if name in found and name != party)


def _require_form(about: Mapping[str, Any], form: str, party: str) -> None:
    if about.get("form") != form:
        raise _refused(f"it is in the form {about.get('form')!r}, not {form!r}")
    if about.get("party") != party:
        raise _refused(f"it says that it is of {about.get('party')!r}")


def _require_parts(alive: list[str], dropped: list[str], terms: Terms) -> None:
    if both := set(alive) & set(dropped):
        raise _asked(f"it says that {_list(both)} answered and dropped out")
    if strange := (set(alive) | set(dropped)) - set(terms.parties):
        raise _asked(f"it names {_list(strange)}, who take no part in this round")
    if missing := set(terms.parties) - set(alive) - set(dropped):
        raise _asked(f"it does not say what became of {_list(missing)}")
    if len(alive) + len(dropped) > len(terms.parties):
        raise _asked("it names a party twice")


def _names(found: Any) -> list[str]:
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise _asked("it does not name the parties")
    return found


def _hexadecimal(found: Any, names: tuple[str, ...] | list[str], size: int) -> dict[str, str]:
    """Bytes by name, in hexadecimal: of all these names, of no others, each of this size."""
    if not isinstance(found, dict) or set(found) != set(names):
        raise _refused("something is missing from it, or is too much")
    for text in found.values():
        if not isinstance(text, str) or len(text) != 2 * size or not _is_hexadecimal(text):
            raise _refused("something in it has another length than it must")
    return {name: found[name] for name in names}


def _is_hexadecimal(text: str) -> bool:
    return not set(text) - set("0123456789abcdef")


def _words(parcel: Parcel, length: int) -> Words:
    words = parcel.tensors.get("words")
    if words is None or words.dtype != torch.int32 or tuple(words.shape) != (length,):
        found = "no words" if words is None else f"{tuple(words.shape)} words of {words.dtype}"
        raise _refused(f"it holds {found}, where {length} of torch.int32 must be")
    found_words: Words = words.numpy().view(np.uint32)
    return found_words


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names))


def _refused(reason: str) -> DamagedError:
    return DamagedError(reason, hint="this message does not count; look at the party's own log")


def _asked(reason: str) -> DamagedError:
    return DamagedError(
        f"a request for a sum that no party may answer: {reason}",
        hint="nothing was told; look at the version and the log of the coordinator",
    )
