"""Rows of cells into lines that can be read alone: `Header: value; Header: value`.

A passage often holds only a few rows of a table, so each row repeats the headers. Values stay
verbatim but for line breaks inside a cell, which become blanks. Whether the first row is a header
is taken from the format where it says so, and guessed from the cells where it does not.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Literal

from consilience.documents.normalise import one_line

Kind = Literal["data", "form"]
"""`data`: a spreadsheet or a csv file, whose first row is a header by custom. `form`: a table in
running text, where two columns may as well be a name and its value."""

_NUMBER = re.compile(r"[^\w\s]*\d[\d.,:/\-%\s年月日时分元]*")
_YEAR = re.compile(r"(?:19|20)\d\d年?")
_DIGIT = re.compile(r"\d")
_LONGEST_HEADER = 80  # characters; a longer cell is a sentence, not the name of a column


def render_table(
    rows: Iterable[Sequence[str]], *, kind: Kind = "data", header: bool | None = None
) -> list[str]:
    """One line for each row of a table.

    Args:
        rows: Cells row by row; rows may differ in length, blank rows separate blocks.
        kind: Where the table comes from, which decides how two columns are read.
        header: Whether the first row is a header; None means that the format does not say.

    Returns:
        Lines without blank ones. A line of a table with a header names the header before each
        value; empty cells are left out. Cells of a table without one stand in order.
    """
    lines: list[str] = []
    for block in _blocks(rows):
        captions, body = _captions(block)
        lines += captions
        lines += _render_block(body, kind, header)
    return lines


def _blocks(rows: Iterable[Sequence[str]]) -> Iterator[list[list[str]]]:
    """Runs of rows that are not blank, with tidy cells and without blank columns at the edges."""
    tidy = ([one_line(cell) for cell in row] for row in rows)
    for filled, run in groupby(tidy, key=any):
        if filled:
            yield _trim_columns(list(run))


def _trim_columns(rows: list[list[str]]) -> list[list[str]]:
    first = min(next(i for i, cell in enumerate(row) if cell) for row in rows)
    width = max(max(i for i, cell in enumerate(row) if cell) for row in rows) + 1
    return [row[first:width] + [""] * (width - max(len(row), first)) for row in rows]


def _captions(rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Split off leading rows with a single cell above a table of several columns."""
    if len(rows[0]) < 2:
        return [], rows
    count = 0
    while count < len(rows) and sum(map(bool, rows[count])) == 1 and rows[count][0]:
        count += 1
    return [row[0] for row in rows[:count]], rows[count:]


def _render_block(rows: list[list[str]], kind: Kind, header: bool | None) -> list[str]:
    if not rows:
        return []
    if _has_header(rows, kind) if header is None else header and len(rows) > 1:
        names = [name.rstrip(" :：") for name in rows[0]]
        return [_named_row(names, row) for row in rows[1:]]
    if kind == "form" and len(rows[0]) == 2:
        return [_pair(row) for row in rows]
    return ["; ".join(filter(None, row)) for row in rows]


def _named_row(names: Sequence[str], row: Sequence[str]) -> str:
    return "; ".join(
        f"{name}: {cell}" if name else cell for name, cell in zip(names, row, strict=True) if cell
    )


def _pair(row: Sequence[str]) -> str:
    name, value = row
    return f"{name.rstrip(' :：')}: {value}" if name and value else name or value


def _has_header(rows: Sequence[Sequence[str]], kind: Kind) -> bool:
    """Whether the first row names the columns, judged by the cells alone."""
    first, body = rows[0], rows[1:]
    if not body or not _could_be_header(first):
        return False
    clear = len(first) > 2 or (len(first) == 2 and kind == "data")
    return clear or _some_column_turns_numeric(first, body)


def _could_be_header(row: Sequence[str]) -> bool:
    """Short, distinct names without a gap; only the corner above row labels may be empty."""
    names = row if row[0] else row[1:]
    return (
        bool(names)
        and all(names)
        and len(set(names)) == len(names)
        and all(len(name) <= _LONGEST_HEADER and not _is_value(name) for name in names)
    )


def _is_value(cell: str) -> bool:
    return _NUMBER.fullmatch(cell) is not None and _YEAR.fullmatch(cell) is None


def _some_column_turns_numeric(first: Sequence[str], body: Sequence[Sequence[str]]) -> bool:
    return any(
        not _DIGIT.search(name) and all(_DIGIT.search(row[column]) for row in body)
        for column, name in enumerate(first)
    )
