"""The protocol of a generator: text in, distributions over tokens out.

A generator reads rows, each a question over one passage, and then tells, token by token, how likely
each next token is given what was written. It knows nothing of priors and sums: whatever stands
above asks for `p(y_t | x, d, y_<t)` of every row and adds up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Pair:
    """One row: a question over one passage."""

    question: str
    title: str
    passage: str


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of a row's passage, in characters, half open."""

    start: int
    end: int


class Generator(Protocol):
    """What every generator can do; `Memory` and `State` are its own affair.

    Attributes:
        start: The id that every answer begins with.
        end: The id that ends an answer.
        none: The id that says "not in this passage", or None when the generator has none.
    """

    start: int
    end: int
    none: int | None

    def read(self, pairs: Sequence[Pair]) -> Any:
        """Read rows; what comes back is the memory that the other calls take."""
        ...

    def begin(self, memory: Any) -> Any:
        """The state before the first token."""
        ...

    def step(self, memory: Any, state: Any, ids: "Tensor") -> "Tensor":
        """Write one token per beam and ask for the next.

        Args:
            memory: Of `read`.
            state: Of `begin`; grows by one step.
            ids: The tokens just written, `[rows, beams]`.

        Returns:
            log p of every next token, float32, `[rows, beams, vocabulary]`.
        """
        ...

    def reorder(self, state: Any, parents: "Tensor") -> None:
        """Beam `i` of each row goes on from beam `parents[row, i]`; `[rows, beams]`."""
        ...

    def score(self, memory: Any, targets: "Tensor") -> "Tensor":
        """Log p of given answers, float32.

        Args:
            memory: Of `read`.
            targets: Ids without the start token, padded with `end`, `[rows, steps]`.

        Returns:
            `[rows, steps]`.
        """
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Ids as text."""
        ...

    def locate(self, memory: Any, row: int, ids: Sequence[int]) -> list[Stretch]:
        """Where in a row's passage the tokens of an answer were taken from.

        Returns:
            Stretches in the order of the answer, neighbours joined; empty when the answer was
            not copied from this passage.
        """
        ...
