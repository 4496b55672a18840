"""Web pages through selectolax: what a visitor sees, and nothing that only the browser reads.

Blocks become paragraphs, items and line breaks become lines, tables become rows that name their
columns. The tree is walked with a stack, since a page may nest deeper than calls can.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from consilience.documents.builder import TextBuilder
from consilience.documents.decoding import decode_text
from consilience.documents.document import Document
from consilience.documents.readers.base import RawFile, extract, finish, title_from
from consilience.documents.tables import render_table
from consilience.errors import DocumentError

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser, LexborNode

# fmt: off
_UNSEEN = frozenset((
    "head", "script", "style", "noscript", "template", "svg", "iframe", "object",
    "canvas", "audio", "video", "textarea", "datalist",
))
_PARAGRAPHS = frozenset((
    "p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "dl", "blockquote", "pre",
    "table", "section", "article", "header", "footer", "nav", "main", "aside", "figure",
    "form", "fieldset", "hr", "address", "details",
))
_LINES = frozenset((
    "div", "li", "dt", "dd", "tr", "br", "figcaption", "caption", "summary", "legend",
    "option", "td", "th",
))
# fmt: on
_DECLARED = re.compile(rb"charset\s*=\s*[\"']?\s*([\w-]+)", re.IGNORECASE)
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_BLANKS = re.compile(r"[ \t\n\r\f\xa0]+")
_MOST_COLUMNS = 100  # that one cell may cover


class _Flow:
    """Text as it flows down a page: runs of blanks collapse, breaks do not add up."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._breaks = 0
        self._blank = False

    def write(self, text: str) -> None:
        """Add text of a node, in which any run of blanks counts as one."""
        text = _BLANKS.sub(" ", text)
        if text.strip(" "):
            self._flush(" " if self._blank or text[0] == " " else "")
            self._pieces.append(text.strip(" "))
        self._blank = text.endswith(" ") or (self._blank and not text)

    def write_verbatim(self, text: str) -> None:
        """Add preformatted text."""
        self._flush("")
        self._pieces.append(text)

    def end_line(self, breaks: int) -> None:
        """What follows stands at least `breaks` line ends below."""
        self._breaks = max(self._breaks, breaks)

    def text(self) -> str:
        """Everything so far."""
        return "".join(self._pieces)

    def _flush(self, blank: str) -> None:
        if self._pieces:
            self._pieces.append("\n" * self._breaks or blank)
        self._breaks, self._blank = 0, False


def read_html(file: RawFile) -> list[Document]:
    """The visible text of the page.

    Raises:
        DocumentError: Bytes of no known encoding, or no visible text.
    """
    from selectolax.lexbor import LexborHTMLParser

    declared = _DECLARED.search(file.data[:2048])
    name = declared.group(1).decode("ascii") if declared else ""
    tree = LexborHTMLParser(decode_text(file.data, declared=name))
    builder = TextBuilder(file.text_chars)
    if tree.root is None:
        raise DocumentError("holds no text: no elements")
    builder.add(_flowing(tree.root))
    return finish(file, extract("html", builder, _title(tree)))


def _title(tree: "LexborHTMLParser") -> str:
    """The title of the page, or its first large heading."""
    found = (tree.css_first("head > title"), tree.css_first("h1"))
    return next(filter(None, (title_from(node.text()) for node in found if node)), "")


def _flowing(root: "LexborNode") -> str:
    """The visible text below an element."""
    flow = _Flow()
    waiting: list[tuple[LexborNode, bool]] = [(root, False)]
    preformatted = 0
    while waiting:
        node, closing = waiting.pop()
        tag = node.tag or ""
        if tag == "-text":
            _write(flow, node, verbatim=preformatted > 0)
            continue
        if not closing and not _is_visible(node):
            continue
        flow.end_line(2 if tag in _PARAGRAPHS else tag in _LINES)
        preformatted += (tag == "pre") * (-1 if closing else 1)
        if not closing and not _wrote_table(flow, node):
            waiting.append((node, True))
            waiting += [(child, False) for child in reversed(list(node.iter(include_text=True)))]
    return flow.text()


def _write(flow: _Flow, node: "LexborNode", *, verbatim: bool) -> None:
    text = node.text_content or ""
    if verbatim:
        flow.write_verbatim(text)
    else:
        flow.write(text)


def _is_visible(node: "LexborNode") -> bool:
    if node.tag in _UNSEEN or not node.is_element_node:
        return False
    attributes = node.attributes
    return "hidden" not in attributes and not _HIDDEN.search(attributes.get("style") or "")


def _wrote_table(flow: _Flow, node: "LexborNode") -> bool:
    """Write a table of data row by row; a table that only lays out a page flows like a block."""
    if node.tag != "table" or _nests_tables(node):
        return False
    for caption in node.css("caption"):
        flow.write(_flowing(caption))
    rows = [row for row in node.css("tr") if _is_visible(row)]
    header = bool(rows) and all(cell.tag == "th" for cell in _cells_of(rows[0]))
    lines = render_table(_filled(rows), kind="form", header=header or None)
    for line in lines:
        flow.end_line(1)
        flow.write(line)
    flow.end_line(2)
    return True


def _nests_tables(table: "LexborNode") -> bool:
    return any(inner.mem_id != table.mem_id for inner in table.css("table"))


def _cells_of(row: "LexborNode") -> list["LexborNode"]:
    return [cell for cell in row.iter() if cell.tag in ("td", "th")]


def _filled(rows: list["LexborNode"]) -> Iterator[list[str]]:
    """Cells in their columns; a cell that covers several rows stands in each of them."""
    reaching: dict[int, tuple[int, str]] = {}  # column: rows still covered, text
    for row in rows:
        cells: list[str] = []
        for cell in _cells_of(row):
            _take_reaching(cells, reaching)
            text = _flowing(cell)
            below = _covered(cell, "rowspan") - 1
            if below > 0:
                reaching[len(cells)] = (below, text)
            cells += [text] + [""] * (_covered(cell, "colspan") - 1)
        _take_reaching(cells, reaching)
        yield cells


def _take_reaching(cells: list[str], reaching: dict[int, tuple[int, str]]) -> None:
    """Append what reaches down from above into the next columns."""
    while len(cells) in reaching:
        left, text = reaching.pop(len(cells))
        if left > 1:
            reaching[len(cells)] = (left - 1, text)
        cells.append(text)


def _covered(cell: "LexborNode", attribute: str) -> int:
    value = cell.attributes.get(attribute) or "1"
    return min(int(value), _MOST_COLUMNS) if value.isdecimal() and value != "0" else 1
