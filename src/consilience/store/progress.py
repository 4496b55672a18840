"""How far a long piece of work is, how fast it goes and how long it will take.

Time left is estimated from bytes worked through, since files differ in size by orders of magnitude;
what is skipped as unchanged counts as done but not as work. Of what is being embedded the share
counts whose texts are, so that one large file shows how far it is, too. Knows nothing of what the
work is.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from consilience.store.base import Progress, Stage


@dataclass(slots=True)
class Meter:
    """Counts, and tells `listener` after every step.

    Attributes:
        listener: Receives each `Progress`; None keeps silent.
        total_files: Files and documents in all.
        total_bytes: Bytes in all.
        clock: Seconds, monotonic.
    """

    listener: Callable[[Progress], None] | None
    total_files: int
    total_bytes: int
    clock: Callable[[], float] = time.monotonic
    done_files: int = 0
    done_bytes: int = 0
    worked_bytes: int = 0
    passages: int = 0
    embedded: int = 0
    started: float = field(init=False)
    _open_bytes: int = field(init=False, default=0)
    _open_texts: int = field(init=False, default=0)
    _open_embedded: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.started = self.clock()

    def skip(self, source: str, size: int) -> None:
        """One file needed no work, or could not be worked on."""
        self._count(size)
        self.tell("reading", source)

    def finish(self, source: str, size: int, passages: int) -> None:
        """One file is committed."""
        self._count(size)
        self.worked_bytes += size
        self.passages += passages
        self.tell("embedding", source)

    def begin(self, size: int, texts: int) -> None:
        """Files of so many bytes are worked on next, with so many texts to embed."""
        self._open_bytes, self._open_texts, self._open_embedded = size, texts, 0

    def embed(self, source: str, count: int) -> None:
        """So many texts were embedded."""
        self.embedded += count
        self._open_embedded += count
        self.tell("embedding", source)

    def tell(self, stage: Stage, source: str = "") -> None:
        """Report where the work stands."""
        if self.listener is not None:
            self.listener(self._at(stage, source))

    def _count(self, size: int) -> None:
        self.done_files += 1
        self.done_bytes += size
        self._open_bytes = max(0, self._open_bytes - size)

    def _at(self, stage: Stage, source: str) -> Progress:
        seconds = self.clock() - self.started
        share = self._open_embedded / self._open_texts if self._open_texts else 0.0
        within = self._open_bytes * min(1.0, share)
        done, worked = self.done_bytes + within, self.worked_bytes + within
        return Progress(
            stage=stage,
            source=source,
            done_files=self.done_files,
            total_files=self.total_files,
            done_bytes=round(done),
            total_bytes=self.total_bytes,
            passages=self.passages,
            rate=self.embedded / seconds if self.embedded and seconds > 0 else 0.0,
            seconds_left=seconds * (self.total_bytes - done) / worked if worked else None,
        )
