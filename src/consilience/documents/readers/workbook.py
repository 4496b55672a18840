"""Spreadsheets (xlsx, xlsm, xls, ods) through python-calamine: each sheet is a page.

Values come as the file stores them. A number that is whole is written without a decimal point and
any other with the fifteen digits that a spreadsheet shows; dates are in ISO form. Number formats
are not applied: a cell shown as 3.5% holds 0.035 and is written so.
"""

import re
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from io import BytesIO
from typing import TYPE_CHECKING
from zipfile import ZipFile

from consilience.documents.archive import check_archive
from consilience.documents.builder import TextBuilder
from consilience.documents.document import Document
from consilience.documents.limits import MEGABYTE
from consilience.documents.readers.base import RawFile, extract, finish
from consilience.documents.tables import render_table
from consilience.errors import DocumentError

if TYPE_CHECKING:
    from python_calamine import CalamineSheet, CalamineWorkbook

_MANIFEST = "META-INF/manifest.xml"  # of an OpenDocument file
_FILE_PASS = re.compile(rb"\x09\x08\x10\0\0\x06\x05\0.{12}\x2f\0", re.DOTALL)
"""The record that begins a BIFF8 workbook, and after it the one that holds its encryption."""

_DEFAULT_NAME = re.compile(r"(?:sheet|工作表|工作簿|表)\s*\d*", re.IGNORECASE)

Value = int | float | str | bool | time | date | datetime | timedelta


def read_workbook(file: RawFile) -> list[Document]:
    """The rows of all sheets as lines of text, a sheet's own name above them.

    Raises:
        DocumentError: Encrypted, refused as hostile, damaged, or without text.
    """
    if file.data.startswith(b"PK"):
        check_archive(file.data)
    workbook = _opened(file.data)
    builder = TextBuilder(file.text_chars)
    for number, name in enumerate(workbook.sheet_names, start=1):
        lines = _lines(workbook, number - 1)
        builder.begin_page(number)
        if lines and not _DEFAULT_NAME.fullmatch(name):
            builder.add(name)
        builder.add_lines(lines)
    return finish(file, extract("workbook", builder))


def _opened(data: bytes) -> "CalamineWorkbook":
    import python_calamine

    if _is_encrypted(data):
        raise DocumentError(
            "encrypted: it opens only with a password", hint="save it without a password"
        )
    try:
        return python_calamine.CalamineWorkbook.from_filelike(BytesIO(data))
    except python_calamine.CalamineError as error:
        raise DocumentError(
            f"damaged: not a complete workbook ({error})", hint="save or fetch it again"
        ) from error


def _is_encrypted(data: bytes) -> bool:
    """Whether a password guards the cells; calamine only says that it cannot tell the format.

    Encrypted xlsx files are no zip archives and never come this far.
    """
    if not data.startswith(b"PK"):
        return _FILE_PASS.search(data) is not None
    with ZipFile(BytesIO(data)) as archive:
        if _MANIFEST not in archive.namelist():
            return False
        with archive.open(_MANIFEST) as manifest:
            return b"encryption-data" in manifest.read(MEGABYTE)


def _lines(workbook: "CalamineWorkbook", index: int) -> list[str]:
    """The rows of one sheet; a sheet of another kind, such as a chart, has none."""
    import python_calamine

    try:
        sheet = workbook.get_sheet_by_index(index)
    except python_calamine.WorksheetNotFound:
        return []
    return render_table(_rows(sheet))


def _rows(sheet: "CalamineSheet") -> Iterator[list[str]]:
    """Cells as text; a cell that is merged downwards stands in every row it covers."""
    rows = [[written(value) for value in row] for row in sheet.to_python(skip_empty_area=True)]
    top, left = sheet.start or (0, 0)
    for (first, column), (last, _) in sheet.merged_cell_ranges or ():
        for row in range(first + 1, min(last, top + len(rows) - 1) + 1):
            rows[row - top][column - left] = rows[first - top][column - left]
    yield from rows


def written(value: Value) -> str:
    """A cell's value as text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.15g}"
    if isinstance(value, datetime) and value.time() == time():
        return value.date().isoformat()
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="minutes" if not value.second else "seconds")
    return value.isoformat() if isinstance(value, (date, time)) else str(value)
