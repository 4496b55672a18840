"""How embedding is spread, as people write it: `4`, `ray:4`, `ray://HOST:PORT?actors=4`.

Knows the spelling only, so that a mistake is told before anything is loaded.
"""

import re
from dataclasses import dataclass

from consilience.errors import UsageError

_HERE = re.compile(r"ray(?::([0-9]+))?")
_THERE = re.compile(r"(ray://(?:\[[0-9a-fA-F:]+\]|[^\s/?#:\[\]]+):[0-9]+)/?(?:\?actors=([0-9]+))?")


@dataclass(frozen=True, slots=True)
class Spread:
    """How embedding is spread.

    Attributes:
        count: Processes or actors; 0 for as many as the cluster has machines.
        ray: Whether they are actors of Ray.
        address: Of the cluster; empty for what RAY_ADDRESS names, else a Ray that is started here.
    """

    count: int = 1
    ray: bool = False
    address: str = ""

    @property
    def alone(self) -> bool:
        """Whether one process does it all."""
        return not self.ray and self.count == 1

    @classmethod
    def parse(cls, text: str) -> "Spread":
        """As it is written.

        Raises:
            UsageError: It is none of the three.
        """
        if text.isascii() and text.isdigit():
            found = cls(int(text))
        elif match := _HERE.fullmatch(text):
            found = cls(_count(match[1]), ray=True)
        elif match := _THERE.fullmatch(text):
            found = cls(_count(match[2]), ray=True, address=match[1])
        else:
            raise _wrong(text)
        if found.count < 0 or (found.count == 0 and not found.ray):
            raise _wrong(text)
        return found


def _count(text: str | None) -> int:
    """A number above zero; 0 where there is none, -1 where it is not above zero."""
    return 0 if text is None else int(text) or -1


def _wrong(text: str) -> UsageError:
    return UsageError(
        f"workers must be a number, at least 1, or name Ray, received {text!r}",
        hint="One of: 4, ray, ray:4, ray://HOST:10001, ray://HOST:10001?actors=4.",
    )
