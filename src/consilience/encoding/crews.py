"""Batches handed out to workers elsewhere: in order, a few at a time, again where a worker died.

Each worker has at most `AHEAD` batches, so that the next is there when it is done and no more lies
in the network than that. One that dies is replaced, and what it had is handed out again a bounded
number of times: texts that kill every worker must not go round for ever. What a worker is, and how
one hears from it, is a `Crew`'s affair; nothing here knows a network or an encoder.
"""

from collections import Counter, deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from consilience.encoding.base import Side
from consilience.errors import BusyError, ConsilienceError

AHEAD = 2
"""How many batches a worker has at most: the one it is at, and the next."""

ATTEMPTS = 4
"""How often a batch is handed out, or a worker started, before it is given up."""

PATIENCE = 120.0
"""Seconds until the first worker must be ready."""

Batch = tuple[Side, Sequence[str]]
"""What a worker is handed at a time."""


class LostError(Exception):
    """A worker died before it was done; the text says where, and of what."""


class Crew(Protocol):
    """Workers by number, and tickets for what they were asked; tickets can be hashed."""

    def hire(self, number: int) -> Hashable:
        """Have a new worker; the ticket is over when it is ready."""
        ...

    def give(self, number: int, batch: Batch) -> Hashable:
        """Hand a worker a batch."""
        ...

    def first(self, tickets: Sequence[Hashable], *, patience: float | None) -> Hashable | None:
        """Wait for one of the tickets to be over; None when none was within `patience` seconds."""
        ...

    def result(self, ticket: Hashable) -> Any:
        """What came of a ticket that is over.

        Raises:
            LostError: The worker died.
            ConsilienceError: The worker lives, and says what was wrong.
        """
        ...

    def dismiss(self, number: int) -> None:
        """Let a worker go, dead or alive."""
        ...


@dataclass(slots=True)
class _Round:
    """The batches of one call.

    Attributes:
        batches: In their order.
        waiting: Places of those to be handed out.
        done: What came of the others, by place.
        lost: How often each was lost.
    """

    batches: Sequence[Batch]
    waiting: deque[int]
    done: dict[int, Any] = field(default_factory=dict)
    lost: Counter[int] = field(default_factory=Counter)


class Team:
    """The workers of a crew, kept from one call to the next.

    Args:
        crew: Where they come from.
        size: How many at most.
        patience: Seconds until the first must be ready.

    Attributes:
        lost: How many died while they worked.
    """

    def __init__(self, crew: Crew, *, size: int, patience: float = PATIENCE) -> None:
        self._crew, self._size, self._patience = crew, size, patience
        self._hired = 0
        self._failed = 0  # starts in a row
        self._coming: dict[Hashable, int] = {}
        self._given: dict[Hashable, tuple[int, int]] = {}
        self._ready: Counter[int] = Counter()
        self.lost = 0

    def results(self, batches: Sequence[Batch]) -> list[Any]:
        """What comes of the batches, in their order.

        Raises:
            BusyError: No worker was ready in time.
            ConsilienceError: A batch was lost too often, workers die at their start, or one says
                what was wrong.
        """
        work = _Round(batches, deque(range(len(batches))))
        try:
            while len(work.done) < len(batches):
                self._hire(min(self._size, len(batches)))
                self._hand_out(work)
                self._hear(work)
        except BaseException:
            self.close()  # what is under way is of no use to the next call
            raise
        return [work.done[place] for place in range(len(batches))]

    def close(self) -> None:
        """Let all workers go."""
        for number in {*self._coming.values(), *self._ready}:
            self._crew.dismiss(number)
        self._coming, self._given, self._ready = {}, {}, Counter()

    def _hire(self, wanted: int) -> None:
        while len(self._coming) + len(self._ready) < wanted:
            self._coming[self._crew.hire(self._hired)] = self._hired
            self._hired += 1

    def _hand_out(self, work: _Round) -> None:
        """Give those with the least to do something to do."""
        while work.waiting and self._ready:
            number, has = min(self._ready.items(), key=lambda item: item[1])
            if has >= AHEAD:
                return
            place = work.waiting.popleft()
            self._given[self._crew.give(number, work.batches[place])] = number, place
            self._ready[number] += 1

    def _hear(self, work: _Round) -> None:
        """Wait for the next that happens."""
        patience = None if self._given else self._patience
        ticket = self._crew.first([*self._given, *self._coming], patience=patience)
        if ticket is None:
            raise BusyError(
                f"no worker was ready within {self._patience:g} seconds",
                hint="Let the cluster have free processors, or name more workers, which are "
                "smaller: ray:8, ray://HOST:PORT?actors=8.",
            )
        if ticket in self._coming:
            self._welcome(ticket)
        else:
            self._take(ticket, work)

    def _welcome(self, ticket: Hashable) -> None:
        number = self._coming.pop(ticket)
        try:
            self._crew.result(ticket)
        except LostError as error:
            self._crew.dismiss(number)
            self._failed += 1
            if self._failed >= ATTEMPTS:
                raise ConsilienceError(
                    f"workers died {ATTEMPTS} times at their start, the last {error}",
                    hint="Every machine needs this version of consilience and room for the model.",
                ) from error
        else:
            self._ready[number], self._failed = 0, 0

    def _take(self, ticket: Hashable, work: _Round) -> None:
        number, place = self._given.pop(ticket)
        try:
            work.done[place] = self._crew.result(ticket)
        except LostError as error:
            self._lose(number, [place], work, error)
        else:
            self._ready[number] -= 1

    def _lose(self, number: int, places: list[int], work: _Round, error: LostError) -> None:
        """Put back what a dead worker had; another is hired in its place."""
        for ticket in [one for one, (other, _) in self._given.items() if other == number]:
            places.append(self._given.pop(ticket)[1])
        del self._ready[number]
        self._crew.dismiss(number)
        self.lost += 1
        work.lost.update(places)
        work.waiting.extendleft(sorted(places, reverse=True))
        worst = max(places, key=lambda place: work.lost[place])
        if work.lost[worst] >= ATTEMPTS:
            raise ConsilienceError(
                f"workers died {ATTEMPTS} times over the same {len(work.batches[worst][1])} texts, "
                f"the last {error}",
                hint="They may need more memory than there is: name fewer workers.",
            ) from error
