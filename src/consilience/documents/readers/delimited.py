"""Tables in text files (csv, tsv): a line for each row, a name of a column before each value."""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from itertools import islice

from consilience.documents.builder import TextBuilder
from consilience.documents.decoding import decode_text
from consilience.documents.document import Document
from consilience.documents.readers.base import RawFile, extract, finish
from consilience.documents.tables import render_table

_DELIMITERS = ",;\t|"
_SAMPLE = 64  # rows that the delimiter is judged by


def read_delimited(file: RawFile) -> list[Document]:
    """The rows of the table as lines of text."""
    text = decode_text(file.data)
    csv.field_size_limit(file.text_chars)
    builder = TextBuilder(file.text_chars)
    builder.add_lines(render_table(_rows(text, _delimiter(text, file.suffix))))
    return finish(file, extract("table", builder))


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)


def _delimiter(text: str, suffix: str) -> str:
    """The delimiter under which most rows have the same number of cells, more than one."""
    if suffix == ".tsv":
        return "\t"
    return max(_DELIMITERS, key=lambda delimiter: _agreement(text, delimiter))


def _agreement(text: str, delimiter: str) -> tuple[int, int]:
    """How many of the first rows share the commonest width, and that width."""
    widths = Counter(len(row) for row in islice(_rows(text, delimiter), _SAMPLE) if len(row) > 1)
    width, rows = max(widths.items(), key=lambda item: item[1], default=(0, 0))
    return rows, width
