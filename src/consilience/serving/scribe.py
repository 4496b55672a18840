"""What the model's thread does: it reads questions, and writes on all that it has read.

Questions that may be written together form a cohort. The first begins at once; those that are read
while it is being written form the next, which begins when the first is done. So a cohort is as
large as the load makes it, nobody waits for company, and a question that comes late waits for one
answer at most. A turn reads one question and writes one token of every cohort: reading does not
hold writing up, and what was stopped is left out at the next turn.

Larger turns were measured and gain nothing on a processor: reading is bound by arithmetic, and a
step for four questions costs half as much a question as a step for one, for sixteen a third.

A mishap belongs to the question that it happened to. One that strikes a whole cohort sends its
members on alone, and then strikes whom it belongs to.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field

from consilience.model import AskOptions, Piece, Rag
from consilience.model.answering import Asked, Clock
from consilience.model.cohort import Cohort, Member, company
from consilience.model.decoding import Written
from consilience.serving.tickets import Ticket


@dataclass(frozen=True, slots=True)
class Work:
    """A question whose passages were found.

    Attributes:
        ticket: Of it.
        options: How it is answered.
        clock: Of it.
        asked: The question with its passages, at least one.
    """

    ticket: Ticket
    options: AskOptions
    clock: Clock
    asked: Asked


@dataclass(frozen=True, slots=True)
class _Batch:
    """Questions that are written together: the cohort, and whose its members are."""

    cohort: Cohort
    works: list[Work]

    def open(self) -> list[tuple[Work, Member]]:
        """Those that are not finished."""
        return [(self.works[place], self.cohort.members[place]) for place in self.cohort.open]


@dataclass(slots=True)
class Scribe:
    """Reads and writes; all calls come from one thread.

    Attributes:
        rag: The model, which runs here.
    """

    rag: Rag
    _forming: dict[Hashable, list[tuple[Work, Member]]] = field(default_factory=dict)
    _running: dict[Hashable, _Batch] = field(default_factory=dict)

    @property
    def busy(self) -> int:
        """How many questions were read and are not answered yet."""
        forming = sum(map(len, self._forming.values()))
        return forming + sum(len(batch.cohort.open) for batch in self._running.values())

    def read(self, work: Work) -> None:
        """Read a question, so that the next turns write on it."""
        if work.ticket.is_over():
            return
        work.clock.mark("turn")
        try:
            if work.options.search != "exact":
                answer = self.rag.answer(work.asked, work.options, work.clock)
                work.ticket.tell(Piece(answer.text, answer.posterior, answer))
                return
            reading = self.rag.read(work.asked, work.options, work.clock)
        except Exception as error:  # noqa: BLE001 - the edge: it is the asker's to hear
            work.ticket.fail(error)
            return
        member = Member(work.asked, reading, work.clock)
        mates = company(work.asked, work.options, reading.generator) or object()
        self._forming.setdefault(mates, []).append((work, member))

    def write(self) -> None:
        """Write one token more on everything that was read."""
        for mates in [mates for mates in self._forming if mates not in self._running]:
            self._begin(mates, self._forming.pop(mates))
        for mates, batch in list(self._running.items()):
            self._step(batch)
            if not batch.cohort.open:
                del self._running[mates]

    def _begin(self, mates: Hashable, together: list[tuple[Work, Member]]) -> None:
        here = [(work, member) for work, member in together if not work.ticket.is_over()]
        if not here:
            return
        options = here[0][0].options.decoding(self.rag.settings.decoding)
        try:
            cohort = Cohort([member for _, member in here], options)
        except Exception as error:  # noqa: BLE001 - the edge: it is the askers' to hear
            self._part(here, error)
            return
        self._running[mates] = _Batch(cohort, [work for work, _ in here])

    def _step(self, batch: _Batch) -> None:
        cohort = batch.cohort
        for place in cohort.open:
            if batch.works[place].ticket.is_over():
                cohort.drop(place)
        here = batch.open()
        try:
            found = cohort.step()
        except Exception as error:  # noqa: BLE001 - the edge: it is the askers' to hear
            for place in cohort.open:
                cohort.drop(place)
            self._part(here, error)
            return
        for place, written in found:
            self._tell(batch, place, written)

    def _tell(self, batch: _Batch, place: int, written: Written) -> None:
        ticket = batch.works[place].ticket
        if ticket.is_over():
            return
        try:
            piece = batch.cohort.piece(place, written)
        except Exception as error:  # noqa: BLE001 - the edge: it is the asker's to hear
            ticket.fail(error)
            return
        if piece is not None:
            ticket.tell(piece)

    def _part(self, together: list[tuple[Work, Member]], error: Exception) -> None:
        """After a mishap: whoever was alone hears of it, others go on alone."""
        if len(together) == 1:
            together[0][0].ticket.fail(error)
            return
        for work, member in together:
            work.ticket.begin_again()
            self._forming[object()] = [(work, member)]
