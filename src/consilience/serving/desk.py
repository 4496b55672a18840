"""Where questions are handed in: many askers, one model.

A question is taken in or refused at once. Its passages are looked up by a few threads, only shortly
before its turn, so that a document that was removed while it waited answers nothing; then it is the
model's thread's, see `scribe`. A model behind an endpoint is asked by the looking threads, of which
there are then as many as questions are answered at the same time.

Order is that of asking. A full desk refuses, so that memory and waiting stay bounded. What one
question does wrong, another does not feel. Knows no HTTP and no keys.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING

from consilience.model import AskOptions, Piece, Rag
from consilience.model.answering import Clock
from consilience.model.rag_model import RagModel
from consilience.serving.errors import OverloadedError, StoppedError
from consilience.serving.scribe import Scribe, Work
from consilience.serving.tickets import Event, Retrieved, Ticket

if TYPE_CHECKING:
    from consilience.store import Store, Where

__all__ = ["Desk", "DeskLimits", "Event", "Retrieved", "Ticket"]


@dataclass(frozen=True, slots=True)
class DeskLimits:
    """How much a desk takes on.

    Attributes:
        concurrent: Questions that are read and written on at the same time; each holds about 20 MB
            for five passages.
        waiting: Questions that wait for that; a further one is refused.
        seconds: How long a question may take, waiting included.
        lookers: Threads that look passages up; a model behind an endpoint has `concurrent`.
    """

    concurrent: int = 8
    waiting: int = 256
    seconds: float = 300.0
    lookers: int = 2


@dataclass(frozen=True, slots=True)
class _Order:
    """A question that was handed in."""

    ticket: Ticket
    question: str
    options: AskOptions
    clock: Clock


class Desk:
    """Takes questions in, has them answered together, and hands out tickets.

    Args:
        rag: The model; its generator is used by the desk's thread only.
        store: The knowledge base.
        limits: How much is taken on.

    Attributes:
        limits: May be replaced while the desk is open; the number of lookers stays.
    """

    def __init__(self, rag: Rag, store: "Store", *, limits: DeskLimits | None = None) -> None:
        self.limits = limits or DeskLimits()
        self._rag, self._store, self._scribe = rag, store, Scribe(rag)
        self._here = isinstance(rag.parts.model, RagModel)
        self._state = threading.Condition()
        self._open: set[Ticket] = set()
        self._waiting: deque[_Order] = deque()
        self._ready: deque[Work] = deque()
        self._looking = 0
        self._closing = self._closed = False
        lookers = self.limits.lookers if self._here else self.limits.concurrent
        named = [("model", self._serve), *[("looker", self._look_up_all)] * lookers]
        self._threads = [_started(name, work) for name, work in named]

    def submit(
        self, question: str, options: AskOptions | None = None, *, where: "Where | None" = None
    ) -> Ticket:
        """Hand a question in.

        Args:
            question: What is asked.
            options: How it is answered; None for the defaults.
            where: The documents that are searched, in place of those of the options.

        Raises:
            OverloadedError: There is no room, or the desk is closing.
        """
        options = options or AskOptions()
        if where is not None:
            options = replace(options, where=where)
        ticket = Ticket(self._forget, seconds=self.limits.seconds)
        with self._state:
            self._require_room()
            self._open.add(ticket)
            self._waiting.append(_Order(ticket, question, options, Clock()))
            self._state.notify_all()
        return ticket

    def close(self, grace: float = 0.0) -> None:
        """Take nothing new, let what was taken finish for a while, and stop.

        Args:
            grace: Seconds that questions in work and waiting have.
        """
        with self._state:
            self._closing = True
            self._state.wait_for(lambda: not self._open, timeout=grace)
            left = list(self._open)
        for ticket in left:
            ticket.fail(StoppedError("the server is stopping", hint="ask again when it is back"))
        with self._state:
            self._closed = True
            self._state.notify_all()
        until = monotonic() + _PATIENCE
        for thread in self._threads:
            thread.join(timeout=max(0.0, until - monotonic()))

    @property
    def load(self) -> tuple[int, int]:
        """How many questions are in work, and how many wait for that."""
        with self._state:
            waiting = len(self._waiting) + len(self._ready)
            return len(self._open) - waiting, waiting

    def _require_room(self) -> None:
        if self._closing:
            raise OverloadedError(
                "the server is about to stop and takes no more questions",
                hint="ask again when it is back",
                retry_after=10,
            )
        room = self.limits.concurrent + self.limits.waiting
        if len(self._open) >= room:
            raise OverloadedError(
                f"{len(self._open)} questions are in work or waiting, and there is room for {room}",
                hint="ask again in 2 s",
                retry_after=2,
            )

    def _forget(self, ticket: Ticket) -> None:
        """A ticket has ended."""
        with self._state:
            self._open.discard(ticket)
            self._waiting = deque(one for one in self._waiting if one.ticket is not ticket)
            self._ready = deque(one for one in self._ready if one.ticket is not ticket)
            self._state.notify_all()

    def _look_up_all(self) -> None:
        """What a looking thread does until the desk is closed."""
        while (order := self._next_order()) is not None:
            work = self._looked_up(order)
            with self._state:
                self._looking -= 1
                if work is not None:
                    self._ready.append(work)
                self._state.notify_all()

    def _next_order(self) -> _Order | None:
        """The next question to look up, None at the end; waits for it."""
        with self._state:
            self._state.wait_for(lambda: self._closed or self._may_look())
            if self._closed:
                return None
            self._looking += 1
            return self._waiting.popleft()

    def _may_look(self) -> bool:
        ahead = len(self._ready) + self._looking
        return bool(self._waiting) and ahead < self.limits.concurrent

    def _looked_up(self, order: _Order) -> Work | None:
        """A question with its passages; None for one that has ended already."""
        ticket, options, clock = order.ticket, order.options, order.clock
        if ticket.is_over():
            return None
        clock.mark("wait")
        try:
            asked = self._rag.look_up(order.question, self._store, options, clock)
            ticket.tell(Retrieved(asked.question, asked.hits))
            if asked.hits and self._here:
                return None if ticket.is_over() else Work(ticket, options, clock, asked)
            answer = self._rag.answer(asked, options, clock)
        except Exception as error:  # noqa: BLE001 - the edge: it is the asker's to hear
            ticket.fail(error)
            return None
        ticket.tell(Piece(answer.text, answer.posterior, answer))
        return None

    def _serve(self) -> None:
        """What the model's thread does until the desk is closed."""
        while self._wait_for_work():
            work = self._next_work()
            if work is not None:
                self._scribe.read(work)
            self._scribe.write()

    def _wait_for_work(self) -> bool:
        """Whether there is any; False at the end."""
        if self._scribe.busy:
            return not self._closed
        with self._state:
            self._state.wait_for(lambda: self._closed or self._ready)
            return not self._closed

    def _next_work(self) -> Work | None:
        """The next question to read, if there is one and room for it."""
        with self._state:
            if not self._ready or self._scribe.busy >= self.limits.concurrent:
                return None
            work = self._ready.popleft()
            self._state.notify_all()
            return work


_PATIENCE = 30.0
"""Seconds that threads have to notice that the desk is closed."""


def _started(name: str, work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, name=f"desk-{name}", daemon=True)
    thread.start()
    return thread
