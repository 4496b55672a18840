"""Word documents: paragraphs and tables in the order in which they stand.

python-docx opens the package and knows the parts. The body is walked as XML, because its own
iteration passes over content controls, text boxes, inserted text and footnotes, all of which people
see. Deleted text, field codes and the fallback copies of drawings are left out.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from consilience.documents.archive import check_archive
from consilience.documents.builder import BLOCK, LINE, TextBuilder
from consilience.documents.document import Document
from consilience.documents.readers.base import RawFile, extract, finish, title_from
from consilience.documents.tables import render_table

if TYPE_CHECKING:
    from docx.document import Document as WordDocument

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_UNSEEN = (_FALLBACK, f"{_W}del", f"{_W}moveFrom", f"{_W}rt")
_WRAPPERS = (f"{_W}sdt", f"{_W}sdtContent", f"{_W}ins", f"{_W}moveTo", f"{_W}customXml")
_BREAKS = {f"{_W}tab": " ", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-"}
_NOTES = ("/footnotes", "/endnotes")

Element = Any  # of lxml, which has no types


@dataclass(frozen=True, slots=True)
class _Styles:
    """Names of paragraph styles by their ids."""

    names: dict[str, str]

    @classmethod
    def of_document(cls, word: "WordDocument") -> "_Styles":
        """The styles that a document defines, read leniently: they only help to find a title."""
        names = {}
        for style in word.styles.element.iter(f"{_W}style"):
            name = style.find(f"{_W}name")
            if name is not None:
                names[style.get(f"{_W}styleId", "")] = name.get(f"{_W}val", "")
        return cls(names)

    def of(self, paragraph: Element) -> str:
        """The name of a paragraph's style in lower case; empty for the default style."""
        style = paragraph.find(f"{_W}pPr/{_W}pStyle")
        key = "" if style is None else style.get(f"{_W}val", "")
        return self.names.get(key, key).lower()


def read_docx(file: RawFile) -> list[Document]:
    """The text of the body, its text boxes and its notes.

    Raises:
        DocumentError: Refused as hostile, damaged, or without text.
    """
    import docx

    check_archive(file.data)
    word = docx.Document(BytesIO(file.data))
    styles = _Styles.of_document(word)
    builder = TextBuilder(file.text_chars)
    title = title_from(word.core_properties.title)
    for part in (word.element.body, *_notes(word)):
        heading = _add_part(builder, part, styles)
        title = title or heading
    return finish(file, extract("docx", builder, title))


def _notes(word: "WordDocument") -> Iterator[Element]:
    """The roots of footnotes and endnotes."""
    from docx.oxml import parse_xml

    for relation in word.part.rels.values():
        if relation.reltype.endswith(_NOTES) and not relation.is_external:
            yield from parse_xml(relation.target_part.blob)


def _add_part(builder: TextBuilder, root: Element, styles: _Styles) -> str:
    """Add the blocks below an element; returns the first heading among them."""
    _drop_unseen(root)
    heading, was_item = "", False
    for block in _blocks(root):
        if block.tag == f"{_W}tbl":
            builder.add_lines(_table(block))
            was_item = False
            continue
        style, text = styles.of(block), _text(block)
        item = _is_item(block, style)
        builder.add(text, gap=LINE if item and was_item else BLOCK)
        was_item = item
        if not heading and style.startswith(("title", "heading")):
            heading = text
    return heading


def _drop_unseen(root: Element) -> None:
    for element in list(root.iter(*_UNSEEN)):
        parent = element.getparent()
        if parent is not None:
            parent.remove(element)


def _blocks(container: Element) -> Iterator[Element]:
    """Paragraphs and tables in order; text boxes follow the paragraph that anchors them."""
    for child in container.iterchildren():
        if child.tag in _WRAPPERS:
            yield from _blocks(child)
        elif child.tag == f"{_W}p":
            boxes = _detached_boxes(child)
            yield child
            for box in boxes:
                yield from _blocks(box)
        elif child.tag == f"{_W}tbl":
            yield child


def _detached_boxes(paragraph: Element) -> list[Element]:
    """The outermost text boxes of a paragraph, taken out of it."""
    boxes = []
    while (box := next(paragraph.iter(f"{_W}txbxContent"), None)) is not None:
        box.getparent().remove(box)
        boxes.append(box)
    return boxes


def _text(element: Element) -> str:
    """The visible characters below an element, breaks and tabs included."""
    pieces = []
    for node in element.iter(f"{_W}t", *_BREAKS):
        pieces.append(_BREAKS.get(node.tag) or node.text or "")
    return "".join(pieces)


def _is_item(paragraph: Element, style: str) -> bool:
    return style.startswith("list") or paragraph.find(f"{_W}pPr/{_W}numPr") is not None


def _table(table: Element) -> list[str]:
    rows = [row for row in table.iter(f"{_W}tr") if _is_of(row, table)]
    marked = bool(rows) and rows[0].find(f"{_W}trPr/{_W}tblHeader") is not None
    return render_table(_filled(map(_cells, rows)), kind="form", header=marked or None)


def _is_of(row: Element, table: Element) -> bool:
    """Whether a row belongs to the table itself and not to a table inside one of its cells."""
    return next(row.iterancestors(f"{_W}tbl")) is table


def _cells(row: Element) -> list[str | None]:
    """The cells of a row in their columns; None where a cell above reaches down."""
    cells: list[str | None] = []
    for cell in row.iter(f"{_W}tc"):
        if next(cell.iterancestors(f"{_W}tr")) is row:
            cells.append(None if _continues(cell) else _cell_text(cell))
            cells += [""] * (_span(cell) - 1)
    return cells


def _cell_text(cell: Element) -> str:
    return " ".join(filter(None, (_text(paragraph) for paragraph in cell.iter(f"{_W}p"))))


def _continues(cell: Element) -> bool:
    merge = cell.find(f"{_W}tcPr/{_W}vMerge")
    return merge is not None and merge.get(f"{_W}val", "continue") == "continue"


def _span(cell: Element) -> int:
    """How many columns a cell covers; at most 64, as in Word."""
    span = cell.find(f"{_W}tcPr/{_W}gridSpan")
    count = "1" if span is None else span.get(f"{_W}val", "1")
    return min(int(count), 64) if count.isdecimal() else 1


def _filled(rows: Iterable[Sequence[str | None]]) -> Iterator[list[str]]:
    """Rows in which a cell that reaches down from above stands in every row it covers."""
    above: list[str] = []
    for row in rows:
        above = [
            (above[i] if i < len(above) else "") if cell is None else cell
            for i, cell in enumerate(row)
        ]
        yield above
