"""Presentations: each slide is a page, with its shapes in order and its notes at the end."""

from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Any

from consilience.documents.archive import check_archive
from consilience.documents.builder import TextBuilder
from consilience.documents.document import Document
from consilience.documents.readers.base import RawFile, extract, finish, title_from
from consilience.documents.tables import render_table

if TYPE_CHECKING:
    from pptx.slide import Slide

Shape = Any  # shapes share no typed protocol in python-pptx


def read_pptx(file: RawFile) -> list[Document]:
    """The text of all slides.

    Raises:
        DocumentError: Refused as hostile, damaged, or without text.
    """
    import pptx

    check_archive(file.data)
    show = pptx.Presentation(BytesIO(file.data))
    builder = TextBuilder(file.text_chars)
    title = title_from(show.core_properties.title)
    for number, slide in enumerate(show.slides, start=1):
        builder.begin_page(number)
        for block in _slide(slide):
            builder.add_lines(block)
        title = title or title_from(_slide_title(slide))
    return finish(file, extract("pptx", builder, title))


def _slide_title(slide: "Slide") -> str:
    title = slide.shapes.title
    return "" if title is None else title.text_frame.text


def _slide(slide: "Slide") -> Iterator[list[str]]:
    """The blocks of a slide: text of shapes, rows of tables, and the notes."""
    for shape in _flat(slide.shapes):
        if shape.has_text_frame:
            yield [shape.text_frame.text]
        elif getattr(shape, "has_table", False):
            yield _table(shape.table)
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        yield [slide.notes_slide.notes_text_frame.text]


def _flat(shapes: Iterable[Shape]) -> Iterator[Shape]:
    """Shapes in order, those inside groups included."""
    for shape in shapes:
        inner = getattr(shape, "shapes", None)
        if inner is None:
            yield shape
        else:
            yield from _flat(inner)


def _table(table: Any) -> list[str]:
    rows = [[cell.text_frame.text for cell in row.cells] for row in table.rows]
    return render_table(rows, kind="form", header=None)
