"""Vectors of questions that many threads ask for at once.

One question alone costs an encoder almost as much as four, since every weight is read for it. So
what is asked while a batch is at work makes up the next one: nobody waits for company, and the more
ask, the less each costs. There is no thread here; whoever finds the encoder free encodes for all
who wait, on one core, since products this small are not worth sharing (see `cores`).
"""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from consilience.encoding.base import Encoder
from consilience.encoding.cores import one_core

MOST = 8
"""Questions in a batch. More would save little, and all who ask would go round at once: they wait
while a batch is encoded, and the encoder waits while they search. Two halves take turns."""

Vector = NDArray[np.float32]
"""`[dimension]`, of length one."""


class QuestionVectors:
    """The vectors of questions, one at a time for each thread that asks.

    Args:
        encoder: Whose vectors; it is asked by one thread at a time.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._lock = threading.Lock()
        self._waiting: deque[_Asked] = deque()
        self._busy = False
        self._last = threading.local()

    def of(self, question: str) -> Vector:
        """The vector of a question.

        The last one of each thread is kept, since a search that goes deeper asks for it again.

        Raises:
            Exception: What the encoder raises for this question alone.
        """
        last: _Asked | None = getattr(self._last, "asked", None)
        if last is None or last.question != question:
            last = self._last.asked = self._encoded(_Asked(question))
        if last.error is not None:
            del self._last.asked
            raise last.error
        assert last.vector is not None
        return last.vector

    def _encoded(self, asked: "_Asked") -> "_Asked":
        """The same, once somebody has encoded it."""
        if not self._begins(asked):
            self._await(asked)
            if asked.is_done:
                return asked
        batch = self._batch(asked)
        try:
            self._encode(batch)
        finally:
            self._hand_on(batch)
        return asked

    def _begins(self, asked: "_Asked") -> bool:
        """Whether nobody is at work, so that this thread is; else the question waits."""
        with self._lock:
            if self._busy:
                self._waiting.append(asked)
                return False
            self._busy = True
            return True

    def _await(self, asked: "_Asked") -> None:
        """Wait until the question is encoded, or its thread is the next to encode."""
        try:
            asked.turn.wait()
        except BaseException:  # an interrupt; what was this thread's to do is another's now
            with self._lock:
                if asked in self._waiting:
                    self._waiting.remove(asked)
                elif not asked.is_done and asked.turn.is_set():
                    self._next()
            raise

    def _batch(self, asked: "_Asked") -> "list[_Asked]":
        with self._lock:
            count = min(MOST - 1, len(self._waiting))
            return [asked, *(self._waiting.popleft() for _ in range(count))]

    def _hand_on(self, batch: "Sequence[_Asked]") -> None:
        """Wake those whose question is done, and the one that encodes next."""
        others = batch[1:]
        with self._lock:
            # Only an interrupt leaves some that are not done.
            self._waiting.extendleft(one for one in reversed(others) if not one.is_done)
            for one in others:
                if one.is_done:
                    one.turn.set()
            self._next()

    def _next(self) -> None:
        """Let the thread that waits longest encode; the lock is held."""
        self._busy = bool(self._waiting)
        if self._waiting:
            self._waiting.popleft().turn.set()

    def _encode(self, batch: "Sequence[_Asked]") -> None:
        """Encode together; where that fails, each alone, so that nobody hears another's error."""
        try:
            with one_core():
                vectors = self._encoder.encode_questions([one.question for one in batch])
        except Exception as error:  # noqa: BLE001 - it is raised again, to whom it belongs
            if len(batch) == 1:
                batch[0].error = error
                return
            for one in batch:
                self._encode([one])
            return
        for one, vector in zip(batch, vectors, strict=True):
            one.vector = np.asarray(vector, np.float32)


@dataclass(slots=True, eq=False)
class _Asked:
    """A question on its way: it has neither, or one of the two once it is done."""

    question: str
    vector: Vector | None = None
    error: Exception | None = None
    turn: threading.Event = field(default_factory=threading.Event)

    @property
    def is_done(self) -> bool:
        return self.vector is not None or self.error is not None
