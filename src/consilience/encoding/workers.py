"""An encoder spread over processes, for embedding in bulk.

The processes have an encoder each and are handed a chunk of texts at a time; reading, splitting and
writing stay with whoever asks. A chunk is always encoded as a whole, so the vectors of the same
texts do not depend on how many processes there are or which of them is faster. A process that dies
(killed, out of memory) is replaced and what it worked on is done again; Ctrl-C is the parent's
affair. Where machines are to share the work, each adds to a store of its own: nothing here knows a
network, and nothing knows what the texts are.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import cached_property
from typing import Any, Self

import numpy as np

from consilience.encoding.base import Encoder, Side, Vectors
from consilience.errors import ConsilienceError, UsageError

CHUNK = 64
"""How many texts a process is handed at a time."""

_ATTEMPTS = 4  # to encode something before it is given up


def chunks_of(side: Side, texts: Sequence[str]) -> list[tuple[Side, list[str]]]:
    """Texts as workers are handed them, `CHUNK` at a time."""
    return [(side, list(texts[at : at + CHUNK])) for at in range(0, len(texts), CHUNK)]


def end_to_end(found: Sequence[Vectors], dimension: int) -> Vectors:
    """The vectors of chunks as those of all texts, `[texts, dimension]`."""
    return np.concatenate([np.zeros((0, dimension), np.float32), *found])


class WorkerEncoder:
    """Implements `Encoder` in several processes. Use it in a `with` statement, or `close` it.

    Args:
        load: Makes the encoder, in each process; a function that can be named from there.
        workers: How many processes, at least 1.
        threads: Of torch in each; 0 to share the processors among them.

    Attributes:
        lost: How many times processes died and their work was done again.

    Raises:
        UsageError: `workers` is below 1.
    """

    def __init__(self, load: Callable[[], Encoder], *, workers: int, threads: int = 0) -> None:
        if workers < 1:
            raise UsageError(
                f"workers must be at least 1, received {workers}", hint="Leave workers out: 1."
            )
        self._load, self._workers = load, workers
        self._threads = threads or max(1, (os.cpu_count() or 1) // workers)
        self._pool: ProcessPoolExecutor | None = None
        self.lost = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes, after the chunks they are at."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    @property
    def fingerprint(self) -> str:
        """The encoder's, told by one of the processes."""
        return self._described[0]

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        return self._described[1]

    @cached_property
    def _described(self) -> tuple[str, int]:
        described: tuple[str, int] = self._done(_describe, [()])[0]
        return described

    def encode_passages(self, passages: Sequence[str]) -> Vectors:
        """`[passages, dimension]`; raises as the encoder does."""
        return self._encoded("passages", passages)

    def encode_questions(self, questions: Sequence[str]) -> Vectors:
        """`[questions, dimension]`; raises as the encoder does."""
        return self._encoded("questions", questions)

    def _encoded(self, side: Side, texts: Sequence[str]) -> Vectors:
        found: list[Vectors] = self._done(_encode, chunks_of(side, texts))
        return end_to_end(found, self.dimension)

    def _done(self, task: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """What the calls return, in their order, done again where processes died."""
        done: dict[int, Any] = {}
        for _ in range(_ATTEMPTS):
            if self._tried(task, calls, done):
                return [done[place] for place in range(len(calls))]
            self.lost += 1
            self.close()
        raise ConsilienceError(
            f"the processes that embed died {_ATTEMPTS} times over the same texts",
            hint="They may need more memory than there is: name fewer --workers.",
        )

    def _tried(
        self, task: Callable[..., Any], calls: Sequence[tuple[Any, ...]], done: dict[int, Any]
    ) -> bool:
        """Do what is not done yet; false when a process died over it."""
        try:
            futures = {
                place: self._processes().submit(task, *call)
                for place, call in enumerate(calls)
                if place not in done
            }
        except BrokenProcessPool:
            return False
        wait(futures.values())
        done |= {place: future.result() for place, future in futures.items() if _lived(future)}
        return len(done) == len(calls)

    def _processes(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._workers,
                # Forking a process that has threads, as torch's do, can leave locks held for ever.
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_begin,
                initargs=(self._load, self._threads),
            )
        return self._pool


def _lived(future: Future[Any]) -> bool:
    return not isinstance(future.exception(), BrokenProcessPool)


_LOADERS: list[Callable[[], Encoder]] = []
_ENCODERS: list[Encoder] = []
"""Of this process: how its encoder is made, and the encoder once it was."""


def _begin(load: Callable[[], Encoder], threads: int) -> None:
    """The first thing that a new process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _LOADERS.append(load)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _encoder() -> Encoder:
    # Not when the process begins: what goes wrong here is to be told as what it is.
    if not _ENCODERS:
        _ENCODERS.append(_LOADERS[0]())
    return _ENCODERS[0]


def _describe() -> tuple[str, int]:
    return _encoder().fingerprint, _encoder().dimension


def _encode(side: Side, texts: list[str]) -> Vectors:
    encoder = _encoder()
    return (
        encoder.encode_questions(texts) if side == "questions" else encoder.encode_passages(texts)
    )
