"""A question in work, as whoever asked it sees it: what happens to it, in order, until its end.

A ticket is written to by the desk's threads and read by one thread or one task of an event loop. It
holds no more events than an answer has tokens. It knows no model and no queue; whoever made it is
told when it ends.
"""

import asyncio
import secrets
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from consilience.model.answer import Piece
from consilience.retrieval import Hit
from consilience.serving.errors import OverloadedError, StoppedError


@dataclass(frozen=True, slots=True)
class Retrieved:
    """The passages of a question were found.

    Attributes:
        question: As it was looked up, with what it follows.
        hits: The passages, the best first.
    """

    question: str
    hits: Sequence[Hit]


Event = Retrieved | Piece
"""What happens to a question; the last is a piece with the whole answer."""


class Ticket:
    """One question in work.

    Args:
        ended: Called once, by whichever thread ends it.
        seconds: How long it may take; after that it fails.

    Attributes:
        id: Nobody can guess it.
    """

    def __init__(self, ended: Callable[["Ticket"], None], *, seconds: float) -> None:
        self.id = secrets.token_hex(8)
        self._seconds, self._due = seconds, time.monotonic() + seconds
        self._on_end = ended
        self._events: deque[Event] = deque()
        self._error: BaseException | None = None
        self._ended = False
        self._told = self._to_skip = 0
        self._changed = threading.Condition()
        self._wake: Callable[[], object] | None = None

    def pieces(self) -> Iterator[Event]:
        """What happens, as it happens; blocks. Raises what the question raised.

        Raises:
            StoppedError: It was cancelled, or the desk was closed.
            OverloadedError: It took too long.
        """
        while True:
            with self._changed:
                self._changed.wait_for(self._has_news, timeout=self._seconds_left())
            self.is_over()
            yield from self._taken()
            if self._is_read():
                return

    async def apieces(self) -> AsyncIterator[Event]:
        """As `pieces`, on an event loop."""
        news = asyncio.Event()
        with self._woken(asyncio.get_running_loop(), news):
            while True:
                news.clear()
                if not self._has_news():
                    with suppress(TimeoutError):
                        await asyncio.wait_for(news.wait(), self._seconds_left())
                self.is_over()
                for event in self._taken():
                    yield event
                if self._is_read():
                    return

    def cancel(self) -> None:
        """Stop the work at its next step. A question that has ended stays as it is."""
        hint = "ask it again"
        self.fail(StoppedError("the question was stopped before it was answered", hint=hint))

    def begin_again(self) -> None:
        """The answer is written from its beginning once more; what was told is not told again."""
        self._to_skip, self._told = self._told, 0

    def tell(self, event: Event) -> None:
        """Hand an event on; one with an answer is the last."""
        with self._changed:
            if self._ended or not self._is_new(event):
                return
            self._events.append(event)
            last = isinstance(event, Piece) and event.answer is not None
            self._ended = last
            self._tell_reader()
        if last:
            self._on_end(self)

    def fail(self, error: BaseException) -> None:
        """End it with an error."""
        with self._changed:
            if self._ended:
                return
            self._ended, self._error = True, error
            self._tell_reader()
        self._on_end(self)

    def is_over(self) -> bool:
        """Whether it has ended; one that is overdue ends here."""
        if not self._ended and self._seconds_left() <= 0:
            self.fail(
                OverloadedError(
                    f"the question was not answered within {self._seconds:g} s",
                    hint="ask again later, or ask for fewer passages or a shorter answer",
                    retry_after=10,
                )
            )
        return self._ended

    def _is_new(self, event: Event) -> bool:
        if isinstance(event, Retrieved) or event.answer is not None:
            return True
        self._told += 1
        return self._told > self._to_skip

    def _tell_reader(self) -> None:
        self._changed.notify_all()
        if self._wake is not None:
            self._wake()

    @contextmanager
    def _woken(self, loop: asyncio.AbstractEventLoop, news: asyncio.Event) -> Iterator[None]:
        """Within it, `news` is set whenever there are any."""

        def wake() -> None:
            # A loop that has gone takes its reader with it.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(news.set)

        self._wake = wake
        try:
            yield
        finally:
            self._wake = None

    def _seconds_left(self) -> float:
        return max(0.0, self._due - time.monotonic())

    def _has_news(self) -> bool:
        return bool(self._events) or self._ended

    def _taken(self) -> Iterator[Event]:
        while self._events:
            yield self._events.popleft()

    def _is_read(self) -> bool:
        """Whether all is read; raises if it ended with an error."""
        if not self._ended or self._events:
            return False
        if self._error is not None:
            raise self._error
        return True
