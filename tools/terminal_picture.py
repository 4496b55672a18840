"""Draw what a program printed on a terminal as an SVG, for the documentation.

The text is taken as it was printed, colours included; nothing is added but the command itself and
nothing is taken away but what comes after `--lines`. The picture names no font that would have to
be fetched, and the same text gives the same bytes.

    FORCE_COLOR=1 COLUMNS=96 consilience ask "…" | python tools/terminal_picture.py answer.svg
"""

import argparse
import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

FONTS = (
    "ui-monospace, 'Cascadia Mono', 'DejaVu Sans Mono', 'Noto Sans Mono CJK SC', "
    "'PingFang SC', 'Microsoft YaHei', monospace"
)
_FETCHED_FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
_NAMED_FONT = re.compile(r"font-family: [^;]*;")

PAPER = TerminalTheme(
    (250, 250, 247),
    (40, 42, 46),
    [
        (40, 42, 46),
        (176, 42, 48),
        (24, 120, 62),
        (150, 98, 0),
        (30, 90, 170),
        (120, 60, 150),
        (0, 115, 130),
        (110, 112, 116),
    ],
)
"""Dark ink on light paper: it stays legible in light and dark pages, and in print."""


def picture(printed: str, *, command: str = "", width: int = 96, lines: int | None = None) -> str:
    """The SVG of a terminal that shows `printed`.

    Args:
        printed: What the program wrote, with ANSI escapes for colours.
        command: Shown above it after a `$`; empty for none.
        width: Columns of the terminal. Han takes two.
        lines: At most so many lines of what was printed; None for all.
    """
    shown = "\n".join(printed.rstrip().splitlines()[:lines])
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    if command:
        console.print(Text.assemble(("$ ", "dim"), (command, "bold"), "\n"))
    console.print(Text.from_ansi(shown))
    drawn = console.export_svg(title="consilience", theme=PAPER, unique_id="terminal")
    return _NAMED_FONT.sub(f"font-family: {FONTS};", _FETCHED_FONT.sub("", drawn))


def main(arguments: list[str] | None = None) -> int:
    """Read standard input, write the picture."""
    parser = argparse.ArgumentParser(description="Draw what is on standard input as a terminal.")
    parser.add_argument("picture", type=Path, help="the SVG to write")
    parser.add_argument("--command", default="", help="shown above, after a $")
    parser.add_argument("--width", type=int, default=96, help="columns; as COLUMNS was")
    parser.add_argument("--lines", type=int, help="lines at most")
    given = parser.parse_args(arguments)
    printed = sys.stdin.read()
    if not printed.strip():
        parser.error("standard input is empty: there is nothing to draw")
    options = {"command": given.command, "width": given.width, "lines": given.lines}
    given.picture.write_text(picture(printed, **options), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
