"""Who takes part: parties join, say what they are, and are refused with the difference named.

A party that was refused, or failed to join, is asked again only after it was gone for a while, or
by the next coordinator; one that left and came back joins again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import time
from typing import Any

from consilience.federation.asking import MOST_TEXT, Asking, Tally
from consilience.federation.config import FederationConfig
from consilience.federation.contracts import PROTOCOL, Description, Wait, Weights
from consilience.federation.messages import Message
from consilience.federation.terms import terms_of
from consilience.version import __version__

MOST_SKEW = 300.0
"""Seconds between two clocks; certificates and time limits stand more."""

_LATER = 60.0  # seconds that a party has to join while others already train


@dataclass(frozen=True, slots=True)
class House:
    """What a party must fit to.

    Attributes:
        run: Name of the run.
        config: Of the federation.
        recipe: As every party gets it.
        model: Fingerprint of the weights that do not travel.
        tokenizer: Fingerprint of the tokenizers.
        shapes: Of the weights that travel.
    """

    run: str
    config: FederationConfig
    recipe: Mapping[str, Any]
    model: str
    tokenizer: str
    shapes: Mapping[str, tuple[int, ...]]


class Admission:
    """Keeps who is in and who is not.

    Args:
        house: What a party must fit to.
        asking: The way to the parties.

    Attributes:
        joined: Parties that take part and are here.
        refused: Parties that are here and do not, with the reason.
    """

    def __init__(self, house: House, asking: Asking) -> None:
        self.house, self.asking = house, asking
        self.joined: set[str] = set()
        self.refused: dict[str, str] = {}

    @property
    def here(self) -> set[str]:
        """Parties that have come, whether they fit or not."""
        return self.joined | self.refused.keys()

    def look(self, tally: Tally, *, first: bool) -> None:
        """See who is here, and let those who came join.

        Args:
            tally: Told what it costs, and who does not fit.
            first: Whether nobody trains yet, so that there is time to wait for all.
        """
        here = set(self.asking.parties.present())
        self.joined &= here
        self.refused = {name: why for name, why in self.refused.items() if name in here}
        newcomers = sorted(here - self.joined - self.refused.keys())
        if newcomers:
            self._let_in(newcomers, tally, first=first)
        tally.lost.update(self.refused)

    def _let_in(self, names: Sequence[str], tally: Tally, *, first: bool) -> None:
        deadline = self.house.config.deadline
        wait = Wait(len(names), 0.0, deadline if first else min(deadline, _LATER))
        asked = time()
        requests = {name: self._invitation(name) for name in names}
        replies = self.asking.ask(requests, wait, tally, kind="description")
        for name in names:
            reply = replies.get(name)
            reason = (
                tally.lost.get(name, "no reply")
                if reply is None
                else self._misfit(reply, name, asked)
            )
            if reason:
                self.refused[name] = reason
            else:
                self.joined.add(name)

    def _invitation(self, name: str) -> Message:
        house = self.house
        content = {
            "protocol": PROTOCOL,
            "version": __version__,
            "clock": time(),
            "terms": terms_of(house.config),
            "recipe": dict(house.recipe),
        }
        return Message("join", house.run, 0, name, content)

    def _misfit(self, reply: Message, name: str, asked: float) -> str:
        """Why a party cannot take part; empty where it can."""
        try:
            found = Description.parse(reply.content["description"])
            return "; ".join(_misfits(found, self.house, name, (asked, time())))[:MOST_TEXT]
        except (KeyError, TypeError, ValueError, AttributeError):
            return "it does not say what it is"


def _misfits(
    found: Description, house: House, name: str, between: tuple[float, float]
) -> Iterator[str]:
    if found.party != name:
        yield f"it calls itself {found.party!r}"
    if found.protocol != PROTOCOL:
        yield f"it speaks protocol {found.protocol!r}, the coordinator {PROTOCOL}"
    if _line(found.version) != _line(__version__):
        yield f"it runs version {found.version}, the coordinator {__version__}"
    if found.model != house.model:
        yield f"its model is {found.model}, the coordinator's {house.model}"
    if found.tokenizer != house.tokenizer:
        yield f"its tokenizer is {found.tokenizer}, the coordinator's {house.tokenizer}"
    if house.config.secure.sums and not found.key:
        yield "it has no key for secure sums"
    yield from _other_shapes(found.shared, house.shapes)
    ahead = max(found.clock - between[1], between[0] - found.clock)
    if not ahead <= MOST_SKEW:
        side = "ahead of" if found.clock > between[1] else "behind"
        yield (
            f"its clock is {ahead:.0f} s {side} the coordinator's, at most {MOST_SKEW:.0f} s are "
            "borne"
        )


def _other_shapes(found: Weights | Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    other = sorted(n for n in found.keys() | wanted.keys() if found.get(n) != wanted.get(n))
    if other:
        first = other[0]
        yield (
            f"{len(other)} shared weights differ, among them {first}: its shape is "
            f"{found.get(first, 'none')}, the coordinator's {wanted.get(first, 'none')}"
        )


def _line(version: str) -> tuple[str, ...]:
    """Major and minor number."""
    return tuple(version.split(".")[:2])
