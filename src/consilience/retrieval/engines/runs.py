"""One commit at a time on servers that have no transactions.

One record, the ledger, says which copy readers see: the shelf that holds its entries, the runs of
publishing that count, and the commit. A run writes its entries under a name of its own, marks those
that go with the commit in which they went, and then replaces the ledger, if that is still the one
it began from. So whoever reads by one ledger reads one commit:

- entries of a run that was killed, or came second, are of no run that counts;
- an entry that went is seen until the ledger reaches the commit in which it went, whoever marked
  it;
- what nobody sees any more is swept away afterwards, but nothing that a later run has begun to
  write: a run takes a turn, one past that of the ledger it began from, and sweeps turns up to its
  own, on the shelves that were there before it replaced the ledger;
- a reader whose ledger was replaced while it read reads again.

Knows no server; what one must be able to do is `Shelves`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from secrets import token_hex
from typing import Any, Protocol, Self

from consilience.errors import BusyError, DamagedError, RemoteError
from consilience.retrieval.engines.base import (
    Answer,
    Delta,
    Entry,
    MovedError,
    Published,
    View,
    typed,
    unpublished,
)
from consilience.retrieval.tuning import Tuning

MOST_RUNS = 200
"""Changes that a copy takes before it is made anew; each is a term of every question's filter."""

_READINGS = 5
"""How often a question is asked again because the ledger was replaced meanwhile."""


@dataclass(frozen=True, slots=True)
class Run:
    """One writing of entries.

    Attributes:
        name: Its own.
        turn: How many ledgers there had been when it began.
    """

    name: str
    turn: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """What readers see.

    Attributes:
        published: The state of the copy.
        shelf: Where its entries are.
        runs: The names of the runs of publishing whose entries count.
        turn: That of the run which wrote it.
    """

    published: Published
    shelf: str
    runs: tuple[str, ...]
    turn: int

    def to_dict(self) -> dict[str, Any]:
        """What `parse` reads, fit for JSON."""
        return asdict(self)

    @classmethod
    def parse(cls, found: Any) -> Self:
        """A ledger as a server kept it. Raises as `Published.parse`."""
        match found:
            case {"published": state, "shelf": str(shelf), "runs": [*runs], "turn": int(turn)}:
                return cls(Published.parse(state), shelf, tuple(map(str, runs)), turn)
        raise DamagedError(
            f"the engine holds no ledger that can be understood, received {str(found)[:200]!r}",
            hint="consilience publish URL --replace makes the copy anew",
        )


@dataclass(frozen=True, slots=True)
class Kept:
    """A ledger as the server has it.

    Attributes:
        found: What was kept, not yet parsed.
        version: What the server compares before it replaces it.
    """

    found: Any
    version: Any


class Shelves(Protocol):
    """A server that keeps entries in shelves, and one ledger.

    Everything but replacing the ledger may be done twice, and is where the server fails at first.
    """

    def ledger(self) -> Kept | None:
        """The ledger as it is now; None where there is none."""
        ...

    def replace(self, ledger: Ledger, kept: Kept | None) -> bool:
        """Put a ledger in the place of `kept`; False, and nothing is done, if that is not there."""
        ...

    def make(self, shelf: str, delta: Delta) -> None:
        """Make an empty shelf for what a change brings."""
        ...

    def has(self, shelf: str) -> bool:
        """Whether a shelf is there."""
        ...

    def add(self, shelf: str, run: Run, entries: Sequence[Entry], tuning: Tuning) -> None:
        """Put entries of a run on a shelf."""
        ...

    def bury(self, ledger: Ledger, died: Mapping[int, int]) -> None:
        """Mark entries that the ledger's readers see with the commit in which each went."""
        ...

    def settle(self, shelf: str) -> None:
        """Return when all that was written to a shelf is found."""
        ...

    def others(self, shelf: str) -> list[str]:
        """The shelves there are beside one."""
        ...

    def sweep(self, ledger: Ledger) -> None:
        """Remove from the ledger's shelf what died, and uncounted runs up to the ledger's turn."""
        ...

    def drop(self, shelf: str) -> None:
        """Remove a shelf; one that is gone already is no fault."""
        ...

    def view(self, ledger: Ledger) -> View:
        """What the ledger's readers see; it raises MovedError where the shelf is gone."""
        ...

    def close(self) -> None:
        """Let go of the server."""
        ...


class RunEngine:
    """An `Engine` on shelves. Threads may share it.

    Args:
        shelves: The server.
        shown: Its address without password.
        recipe: What of a tuning shapes the entries.
    """

    def __init__(self, shelves: Shelves, *, shown: str, recipe: Callable[[Tuning], str]) -> None:
        self._shelves = shelves
        self._shown = shown
        self._recipe = recipe

    @property
    def shown(self) -> str:
        """Its address without password."""
        return self._shown

    @property
    def most_steps(self) -> int:
        """As many as a filter takes."""
        return MOST_RUNS

    def recipe(self, tuning: Tuning) -> str:
        """What of a tuning shapes what lies in the engine."""
        return self._recipe(tuning)

    def state(self) -> Published | None:
        """The state of the copy, or None; see `Engine.state`."""
        kept = self._shelves.ledger()
        return None if kept is None else Ledger.parse(kept.found).published

    def read(self, ask: Callable[[View], Answer]) -> Answer:
        """Ask by one ledger, and again if it was replaced meanwhile; see `Engine.read`."""
        kept = self._shelves.ledger()
        for _ in range(_READINGS):
            if kept is None:
                raise unpublished(self._shown)
            answer = self._asked(ask, Ledger.parse(kept.found))
            earlier, kept = kept, self._shelves.ledger()
            if kept is not None and kept.version == earlier.version:
                if answer:
                    return answer[0]
                raise self._damaged()
        raise BusyError(
            f"{self._shown} is published to faster than it can be read", hint="Ask again."
        )

    def publish(self, delta: Delta) -> None:
        """Write a run, then the ledger; see `Engine.publish`."""
        kept = self._shelves.ledger()
        before = None if delta.before is None else self._expected(kept, delta.before)
        run = Run(token_hex(8), _turn(kept) + 1)
        shelf = run.name if before is None or delta.whole else before.shelf
        counted = self._written(before, shelf, run, delta)
        if before is not None and not delta.whole:
            self._shelves.bury(before, delta.removed)
            counted = (*before.runs, *counted)
        self._shelves.settle(shelf)
        ledger = Ledger(delta.reached(), shelf, counted, run.turn)
        # Whoever began one of these read an earlier ledger than this one, so can only come second.
        left_over = self._shelves.others(shelf)
        if not self._shelves.replace(ledger, kept):
            raise MovedError(f"someone else has published to {self._shown}")
        with suppress(RemoteError):  # what is left over is seen by nobody and swept the next time
            self._shelves.sweep(ledger)
            for other in left_over:
                self._shelves.drop(other)

    def close(self) -> None:
        """Let go of the server."""
        self._shelves.close()

    def _asked(self, ask: Callable[[View], Answer], ledger: Ledger) -> list[Answer]:
        """The answer; nothing where the shelf is gone."""
        try:
            return [ask(self._shelves.view(ledger))]
        except MovedError:
            return []

    def _damaged(self) -> DamagedError:
        return DamagedError(
            f"the entries of the copy in {self._shown} are gone, though its ledger is there",
            hint=f"consilience publish {typed(self._shown)} --replace",
        )

    def _expected(self, kept: Kept | None, before: Published) -> Ledger:
        if kept is not None:
            ledger = Ledger.parse(kept.found)
            if ledger.published == before and not self._shelves.has(ledger.shelf):
                raise self._damaged()
            if ledger.published == before:
                return ledger
        raise MovedError(f"someone else has published to {self._shown}")

    def _written(
        self, before: Ledger | None, shelf: str, run: Run, delta: Delta
    ) -> tuple[str, ...]:
        """The run, if it brought entries."""
        if before is None or delta.whole:
            self._shelves.make(shelf, delta)
        brought = False
        for batch in delta.added:
            self._shelves.add(shelf, run, batch, delta.tuning)
            brought = True
        return (run.name,) if brought else ()


def _turn(kept: Kept | None) -> int:
    """The turn of a ledger; 0 for one that cannot be understood."""
    if kept is not None and isinstance(kept.found, dict):
        turn = kept.found.get("turn")
        return turn if isinstance(turn, int) else 0
    return 0
