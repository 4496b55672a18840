"""How far a piece of work has come, shown on standard error.

On a terminal a bar that moves; elsewhere a line now and then, for logs; nothing for scripts. What
an `add` tells is `consilience.store.Progress`; all else is counted.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from consilience.cli.messages import Words
from consilience.cli.screen import Screen, one_line

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from consilience.store import Progress

Listener = Callable[["Progress"], None]

SECONDS_BETWEEN_LINES = 10.0


class Counter(Protocol):
    """Told how many are done of how many, and what else there is to say of it."""

    def __call__(self, done: int, total: int, more: str = "") -> None:
        """Show it."""
        ...


@contextmanager
def shown(screen: Screen, *, quiet: bool) -> Iterator[Listener | None]:
    """A listener for the length of one piece of work; None where nobody looks."""
    if quiet or screen.json:
        yield None
    elif screen.err.is_terminal:
        with _bars(screen) as bars:
            yield MovingBar(bars, bars.add_task("", total=None, source=""), screen.words)
    else:
        lines = Lines(screen)
        yield lambda progress: lines(described(progress, screen.words))


def described(progress: "Progress", words: Words) -> str:
    """Where the work stands, in one line."""
    parts = [words.files_done.format(done=progress.done_files, total=progress.total_files)]
    if progress.rate > 0:
        parts.append(words.rate.format(rate=progress.rate))
    if progress.seconds_left is not None:
        parts.append(words.seconds_left.format(time=clock_time(progress.seconds_left)))
    return " · ".join(parts)


def clock_time(seconds: float) -> str:
    """Seconds as `m:ss`, or `h:mm:ss` from an hour on."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@dataclass(slots=True)
class MovingBar:
    """Draws progress as one moving line."""

    bars: "Bars"
    task: "TaskID"
    words: Words

    def __call__(self, progress: "Progress") -> None:
        """Move the bar; it measures bytes, as files differ in size."""
        self.bars.update(
            self.task,
            total=max(1, progress.total_bytes),
            completed=progress.done_bytes,
            description=described(progress, self.words),
            source=one_line(progress.source)[-40:],
        )


@dataclass(slots=True)
class Lines:
    """Writes a line every few seconds and leaves out what comes in between.

    Attributes:
        screen: Where to.
        clock: Seconds, monotonic.
    """

    screen: Screen
    clock: Callable[[], float] = time.monotonic
    told: float = field(init=False)

    def __post_init__(self) -> None:
        self.told = self.clock()

    def __call__(self, line: str) -> None:
        """Write a line if the last one is long enough ago."""
        if self.clock() - self.told >= SECONDS_BETWEEN_LINES:
            self.told = self.clock()
            self.screen.note(line)


def _bars(screen: Screen) -> "Bars":
    from rich.progress import BarColumn, Progress, TextColumn

    described_by = (TextColumn(text, markup=False) for text in _COLUMNS)
    return Progress(BarColumn(), *described_by, console=screen.err, transient=True)


_COLUMNS = ("{task.description}", "{task.fields[source]}")


@contextmanager
def counted(screen: Screen, told: str) -> Iterator[Counter | None]:
    """A listener that shows how many are done of how many; None where nobody looks.

    Args:
        screen: Where to.
        told: How a count is put into words, with `{done}` and `{total}`.
    """
    if screen.json:
        yield None
    elif screen.err.is_terminal:
        from rich.progress import Progress as Bars

        with Bars(console=screen.err, transient=True) as bars:
            yield CountBar(bars, bars.add_task("", total=None), told)
    else:
        yield CountLines(Lines(screen), told)


def _counted(told: str, done: int, total: int, more: str) -> str:
    return " · ".join(filter(None, [told.format(done=done, total=total), more]))


@dataclass(slots=True)
class CountLines:
    """Writes a count as a line now and then."""

    lines: Lines
    told: str

    def __call__(self, done: int, total: int, more: str = "") -> None:
        """Write a line, if it is time."""
        self.lines(_counted(self.told, done, total, more))


@dataclass(slots=True)
class CountBar:
    """Draws a count as one moving line."""

    bars: "Bars"
    task: "TaskID"
    told: str

    def __call__(self, done: int, total: int, more: str = "") -> None:
        """Move the bar."""
        words = _counted(self.told, done, total, more)
        self.bars.update(self.task, total=total, completed=done, description=words)
