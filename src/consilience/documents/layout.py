"""Pieces of text with their places on a page, put together into paragraphs and table rows.

A PDF knows where characters stand and not what they form. Four rules of thumb recover most of it:
pieces at one height are a line; a wide gap inside a line divides cells; lines whose cells stand
below each other are a table; a line that had no room for the next word goes on in the next line.
Pure geometry: nothing here knows PDF, and sizes are in whatever unit the page has.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from consilience.documents.normalise import HYPHEN_MARK, is_cjk, join_wrapped, joint
from consilience.documents.tables import render_table

_CELL_GAP = 1.0  # heights of a line; justified text stretches its blanks to about half of that
_LINE_PITCH = 2.2  # heights from one line to the next; double spacing is about two
_LOOSER = 1.25  # times the pitch before; a wider step down leaves the paragraph
_HEADING = 1.2  # times the usual height
_ITEM = re.compile(
    r"[•·‣▪●○■□◆*–—-]"  # a bullet
    r"|\(?\w{1,2}[.)] |[（(]?[一二三四五六七八九十\d]{1,3}[）、]|第\w{1,4}[条章节款]"  # a number
    r"|[^\s:：。.]{1,20}[:：](?!//)"  # a name before its value
)
"""How a line begins that starts something of its own, however full the line before it was."""


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of text and its box; `bottom < top`, `left < right` for upright text."""

    text: str
    left: float
    bottom: float
    right: float
    top: float


@dataclass(frozen=True, slots=True)
class Line:
    """Spans at one height, divided into cells by the wide gaps between them."""

    cells: tuple[Span, ...]

    @property
    def text(self) -> str:
        """The cells, one after the other."""
        return "  ".join(cell.text for cell in self.cells)

    @property
    def left(self) -> float:
        """Where the line begins."""
        return self.cells[0].left

    @property
    def right(self) -> float:
        """Where the line ends."""
        return self.cells[-1].right

    @property
    def height(self) -> float:
        """The height of its tallest cell."""
        return max(cell.top - cell.bottom for cell in self.cells)

    @property
    def base(self) -> float:
        """Where its text stands."""
        return self.cells[0].bottom


@dataclass(frozen=True, slots=True)
class Block:
    """Lines that belong together.

    Attributes:
        lines: As they stand on the page.
        rows: Their text: the rows of a table, or a single paragraph.
        table: Which of the two it is.
    """

    lines: tuple[Line, ...]
    rows: tuple[str, ...]
    table: bool


def lines_of(spans: Iterable[Span]) -> list[Line]:
    """Spans in reading order as lines with cells."""
    rows: list[list[Span]] = []
    for span in spans:
        if rows and _same_line(rows[-1][-1], span):
            rows[-1].append(span)
        else:
            rows.append([span])
    return [Line(tuple(_cells(row))) for row in rows]


def blocks_of(lines: Sequence[Line]) -> Iterator[Block]:
    """Lines as blocks, in their order and without a rest.

    Args:
        lines: The lines of one page, in reading order.
    """
    around = "\n".join(line.text for line in lines)
    rest = list(lines)
    while rest:
        count = _table_length(rest)
        if count:
            rows = render_table([[cell.text for cell in line.cells] for line in rest[:count]])
            yield Block(tuple(rest[:count]), tuple(rows), table=True)
        else:
            count = _paragraph_length(rest)
            yield Block(tuple(rest[:count]), (_joined(rest[:count], around),), table=False)
        del rest[:count]


def heading_of(lines: Sequence[Line]) -> str:
    """The first line, where it is set larger than most lines of the page; else nothing."""
    if len(lines) < 2:
        return ""
    usual = sorted(line.height for line in lines)[len(lines) // 2]
    return lines[0].text if lines[0].height > _HEADING * usual else ""


def _same_line(before: Span, after: Span) -> bool:
    """Whether `after` stands to the right of `before` at nearly its height."""
    overlap = min(before.top, after.top) - max(before.bottom, after.bottom)
    lower = min(before.top - before.bottom, after.top - after.bottom)
    return overlap > 0.6 * lower and after.left >= before.right - 0.5 * lower


def _cells(row: Sequence[Span]) -> Iterator[Span]:
    current = row[0]
    for span in row[1:]:
        gap = span.left - current.right
        if gap > _CELL_GAP * (current.top - current.bottom):
            yield current
            current = span
        else:
            current = _merged(current, span, gap)
    yield current


def _merged(left: Span, right: Span, gap: float) -> Span:
    """Two spans of one cell; a small gap between Han characters is no blank."""
    between = joint(left.text, right.text) if gap > 0 else ""
    return Span(
        left.text + between + right.text,
        min(left.left, right.left),
        min(left.bottom, right.bottom),
        max(left.right, right.right),
        max(left.top, right.top),
    )


def _table_length(lines: Sequence[Line]) -> int:
    """How many lines at the top are the rows of one table; 0 for none."""
    count = 1
    while count < len(lines) and _below_each_other(lines[0], lines[count]):
        count += 1
    return count if count > 1 else 0


def _below_each_other(head: Line, row: Line) -> bool:
    """Whether two lines have the same number of cells, more than one, each under the other."""
    return (
        len(head.cells) == len(row.cells) > 1
        and row.base < head.base
        and all(
            upper.left < lower.right and lower.left < upper.right
            for upper, lower in zip(head.cells, row.cells, strict=True)
        )
    )


def _paragraph_length(lines: Sequence[Line]) -> int:
    """How many lines at the top make one paragraph, at least one."""
    column = _column(lines)
    for count, (line, following) in enumerate(pairwise(column), start=1):
        if not _goes_on(line, following, right=max(one.right for one in column)):
            return count
    return len(column)


def _column(lines: Sequence[Line]) -> Sequence[Line]:
    """Leading lines that stand evenly and close below each other in one column and one size."""
    before = 0.0
    for count, (line, following) in enumerate(pairwise(lines), start=1):
        pitch = line.base - following.base
        if not _adjoins(line, following) or (before and pitch > _LOOSER * before):
            return lines[:count]
        before = pitch
    return lines


def _adjoins(line: Line, following: Line) -> bool:
    """Whether two lines could be neighbours in one paragraph."""
    similar = line.height > 0 and 0.8 < following.height / line.height < 1.25
    return (
        similar
        and len(line.cells) == len(following.cells) == 1
        and 0 < line.base - following.base < _LINE_PITCH * line.height
        and following.left < line.right
        and line.left < following.right
    )


def _goes_on(line: Line, following: Line, *, right: float) -> bool:
    """Whether a line broke only because the next word had no room before `right`."""
    if line.text.endswith(HYPHEN_MARK):
        return True
    if _ITEM.match(following.text) or following.left > line.left + 1.5 * line.height:
        return False
    width = (following.right - following.left) / max(len(following.text), 1)
    return line.right + width * _first_unit(following.text) > right


def _first_unit(text: str) -> int:
    """Characters that cannot be parted at the beginning of a line, with the blank before them."""
    if is_cjk(text[0]):
        return 2  # a full stop may hang on the character
    word = text.split(maxsplit=1)[0]
    return next((i for i, character in enumerate(word) if is_cjk(character)), len(word)) + 1


def _joined(lines: Sequence[Line], around: str) -> str:
    text = lines[0].text
    for line in lines[1:]:
        text = join_wrapped(text, line.text, around=around)
    return text.replace(HYPHEN_MARK, "-")
