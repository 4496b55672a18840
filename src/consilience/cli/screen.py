"""Where a verb speaks: one JSON document for scripts, or text for people.

Text from documents, names and questions is never trusted: control characters and marks that turn
the direction of writing are shown as escapes, and nothing is ever read as markup. Text that is not
for a terminal is never wrapped. Knows nothing of verbs.
"""

import io
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TextIO

from consilience.cli.flags import Output
from consilience.cli.messages import WORDS, language_of_locale

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Part = str | tuple[str, str]
"""Text that is safe for a terminal, or such text with a style."""

_UNWRAPPED = 1000
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff]"
)


def safe(text: str) -> str:
    r"""Text whose every character shows or spaces and none steers the terminal.

    Joiners inside emoji and scripts stay, since they only shape what is shown.

    Example:
        >>> print(safe("red: \x1b[31m"))
        red: \x1b[31m
    """
    return _UNSAFE.sub(lambda found: _escape(found[0]), text)


def one_line(text: str) -> str:
    """`safe` text with every run of white space as one space."""
    return safe(re.sub(r"\s+", " ", text).strip())


def _escape(character: str) -> str:
    return character.encode("unicode_escape", errors="backslashreplace").decode("ascii")


class Screen:
    """Standard output and error of one run of a verb.

    Args:
        output: The flags that say how to speak.
    """

    def __init__(self, output: Output) -> None:
        self.json = output.json
        self.language = output.lang or language_of_locale(os.environ)
        self.words = WORDS[self.language]

    @cached_property
    def out(self) -> "Console":
        """For what was asked for."""
        return _console(sys.stdout)

    @cached_property
    def err(self) -> "Console":
        """For everything else: progress, failures, errors."""
        return _console(sys.stderr)

    def document(self, found: Mapping[str, Any]) -> None:
        """Print the one JSON document of this run."""
        text = json.dumps(found, ensure_ascii=not _speaks_unicode(sys.stdout), allow_nan=False)
        sys.stdout.write(f"{text}\n")

    def line(self, *parts: Part) -> None:
        """Print one line, however long, on standard output."""
        self.out.print(assembled(*parts), soft_wrap=True)

    def note(self, *parts: Part) -> None:
        """Print one line, however long, on standard error."""
        self.err.print(assembled(*parts), soft_wrap=True)

    def tell(self, text: str) -> None:
        """Print what a piece of work has to say, of any number of lines; not to scripts."""
        if not self.json:
            for line in text.splitlines():
                self.note(safe(line))

    def flush(self) -> None:
        """Hand on what was printed now, to whoever waits for it on the other end of a pipe."""
        sys.stdout.flush()

    def heading(self, text: str) -> None:
        """Print a blank line and a heading."""
        self.line()
        self.line((text, "bold"))

    def next(self, *words: str) -> None:
        """Say what to type next, ready to be copied.

        Args:
            *words: The words after `consilience`.
        """
        command = safe(shlex.join(["consilience", *words]))
        self.line((f"{self.words.next}: ", "dim"), command)

    @contextmanager
    def working(self, text: str) -> Iterator[None]:
        """Show on a terminal that something is being done; say nothing elsewhere."""
        if self.json or not self.err.is_terminal:
            yield
            return
        with self.err.status(text):
            yield

    def bar(self, share: float, width: int = 20) -> str:
        """A share from 0 to 1 as a bar, in characters that standard output can write."""
        return bar(share, width, blocks=_BLOCKS if _speaks_unicode(sys.stdout) else " #")


_BLOCKS = " ▏▎▍▌▋▊▉█"


def bar(share: float, width: int, *, blocks: str = _BLOCKS) -> str:
    """A share as a bar of exactly `width` characters, longer for a larger share.

    Args:
        share: From 0 to 1; what lies outside is drawn as the nearer of the two.
        width: The length that stands for 1.
        blocks: From an empty to a full character, in equal steps.
    """
    steps = len(blocks) - 1
    eighths = round(min(1.0, max(0.0, share)) * width * steps)
    whole, rest = divmod(eighths, steps)
    drawn = blocks[-1] * whole + (blocks[rest] if rest else "")
    return drawn.ljust(width)


def assembled(*parts: Part) -> "Text":
    """Parts as one rich text."""
    from rich.text import Text

    return Text.assemble(*parts)


def accept_any_text() -> None:
    """Make the standard streams print every string: what they cannot encode comes out escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _console(stream: TextIO) -> "Console":
    from rich.console import Console

    wide = None if stream.isatty() or "COLUMNS" in os.environ else _UNWRAPPED
    return Console(file=stream, width=wide, highlight=False, markup=False, emoji=False)


def _speaks_unicode(stream: TextIO) -> bool:
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"
