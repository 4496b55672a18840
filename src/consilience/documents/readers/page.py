"""One page of a PDF as people see it: its picture, and where characters of its text stand on it.

The text of a page is made of its characters by joining lines, dropping hyphens and repeating the
headers of tables. Here the page is read once more and every character of the text is followed back
to one of the page. Where that does not come out even, the answer says so: no place is guessed.
"""

import base64
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from consilience.documents.layout import Block, Line, blocks_of, lines_of
from consilience.documents.normalise import HYPHEN_MARK, clean, one_line
from consilience.documents.readers.base import RawFile
from consilience.documents.readers.pdf import Box, Characters, Pdf, opened_pdf
from consilience.documents.wire import Message
from consilience.errors import DocumentError

MOST_PIXELS = 12_000_000
"""A picture of more pixels is drawn smaller."""

_HYPHENS = frozenset("-\u2010\u00ad" + HYPHEN_MARK)
_FINE = 1_000_000  # steps of a page's width and height, in which boxes are measured
_SAME_LINE = 0.5  # of the lower of two boxes, by which they must overlap to be of one line
_PACKING = 3  # of zlib: pages are mostly white, and someone waits

Placed = tuple[str, int]
"""A visible character of a page, and the number under which PDFium knows it."""

NOWHERE = -1
"""The place of a blank, and of what was put in between: there is nothing to show."""

Place = int | None
"""The number of the character of the page that one of the text is; None where that is not known."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text, and the characters of the page that it was made of; none: it was put in.

    Attributes:
        text: As it stands in the document.
        placed: In their order; characters of which nothing is left stand among them.
    """

    text: str
    placed: tuple[Placed, ...] | None = None


def view_page(file: RawFile, view: Message) -> Message:
    """What is asked of one page: a picture where `width` is set, else boxes.

    Args:
        file: The bytes of a PDF.
        view: `page`, from 1; `width`, pixels, or 0; `text`, `start`, `end`: the text of the page
            and the stretch of it that is looked for.

    Raises:
        DocumentError: No PDF, encrypted, damaged, or without such a page.
    """
    pdf = opened_pdf(file.data)
    if view["page"] > len(pdf):
        raise DocumentError(f"has no page {view['page']}: it has {len(pdf)}")
    if view["width"]:
        return {"picture": base64.b64encode(_picture(pdf, view)).decode("ascii")}
    return _boxes(pdf, view)


def _picture(pdf: Pdf, view: Message) -> bytes:
    """The page as PNG, `width` pixels wide or as wide as `MOST_PIXELS` allows."""
    page = pdf[view["page"] - 1]
    width, height = page.get_size()
    if not width > 0 < height:
        raise DocumentError(f"its page {view['page']} has no size")
    scale = min(view["width"] / width, (MOST_PIXELS / (width * height)) ** 0.5)
    bitmap = page.render(scale=scale, rev_byteorder=True)
    assert bitmap.n_channels == 3  # as nothing of a page shows through it
    return _png(bytes(bitmap.buffer), bitmap.width, bitmap.height, bitmap.stride)


def _png(rows: bytes, width: int, height: int, stride: int) -> bytes:
    """Rows of red, green and blue, `stride` bytes from one to the next, as PNG."""
    packer = zlib.compressobj(_PACKING)
    packed = [
        packer.compress(b"\0" + rows[start : start + 3 * width])
        for start in range(0, height * stride, stride)
    ]
    packed.append(packer.flush())
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", b"".join(packed)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, body) for name, body in chunks)


def _chunk(name: bytes, body: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + body))
    return struct.pack(">I", len(body)) + name + body + check


def _boxes(pdf: Pdf, view: Message) -> Message:
    """Boxes of the characters from `start` to `end`, and whether all of them were found.

    A box is left, top, right and bottom in fractions of the page, from its upper left corner.
    """
    import pypdfium2 as pdfium

    page = pdf[view["page"] - 1]
    characters = Characters(page.get_textpage(), pdfium.raw)
    wanted = range(view["start"], min(view["end"], len(view["text"])))
    places = _places(characters, view["text"])
    visible = [at for at in wanted if not view["text"][at].isspace()]
    known = [place for place in (places[at] for at in visible) if place is not None]
    found = sorted(set(known) - {NOWHERE})
    boxes = [characters.box(number) for number in found]
    return {
        "boxes": [_on_page(pdfium.raw, page, box) for box in _by_line(boxes)],
        "complete": len(known) == len(visible) and bool(found),
    }


def _on_page(raw: Any, page: Any, box: Box) -> list[float]:
    """A box in fractions of the page as it is drawn, which may be turned and cut."""
    corners = [_pixel(raw, page, x, y) for x, y in ((box[0], box[1]), (box[2], box[3]))]
    (left, right), (top, bottom) = (sorted(pair) for pair in zip(*corners, strict=True))
    return [min(max(edge / _FINE, 0.0), 1.0) for edge in (left, top, right, bottom)]


def _pixel(raw: Any, page: Any, x: float, y: float) -> tuple[int, int]:
    import ctypes

    across, down = ctypes.c_int(), ctypes.c_int()
    raw.FPDF_PageToDevice(
        page, 0, 0, _FINE, _FINE, 0, x, y, ctypes.byref(across), ctypes.byref(down)
    )
    return across.value, down.value


def _by_line(boxes: Sequence[Box]) -> Iterator[Box]:
    """Boxes in reading order, those of one line made one."""
    current: Box | None = None
    for box in boxes:
        if current is not None and _same_line(current, box):
            current = (*map(min, current[:2], box[:2]), *map(max, current[2:], box[2:]))  # type: ignore[assignment]
        else:
            if current is not None:
                yield current
            current = box
    if current is not None:
        yield current


def _same_line(before: Box, after: Box) -> bool:
    overlap = min(before[3], after[3]) - max(before[1], after[1])
    lower = min(before[3] - before[1], after[3] - after[1])
    return overlap > _SAME_LINE * lower and after[0] >= before[0]


def _places(characters: Characters, text: str) -> list[Place]:
    """Where each character of the page's text stands, `[characters of text]`.

    Where the page, read once more, has another text, nothing is known of any.
    """
    placed = iter(list(characters.visible()))
    places: list[Place] = []
    for block in blocks_of(lines_of(characters.spans())):
        for pieces in _rows(block, placed):
            row = clean("".join(piece.text for piece in pieces)).strip()
            gap = _gap(text, len(places)) if row else 0
            if not text.startswith(row, len(places) + gap):
                return [None] * len(text)
            places += [NOWHERE] * gap + _of_row(row, pieces)
    return places if len(places) == len(text) else [None] * len(text)


def _gap(text: str, start: int) -> int:
    """How many line ends stand at `start`, between two rows or blocks."""
    return len(text[start : start + 3]) - len(text[start : start + 3].lstrip("\n"))


def _rows(block: Block, placed: Iterator[Placed]) -> Iterator[list[Piece]]:
    """The rows of a block, each as the pieces that it was made of."""
    cells = [[_taken(cell.text, placed) for cell in line.cells] for line in block.lines]
    if not block.table:
        yield [Piece(block.rows[0], tuple(one for row in cells for cell in row for one in cell))]
        return
    lines = [_cells(line, taken) for line, taken in zip(block.lines, cells, strict=True)]
    named = len(block.rows) == len(lines) - 1
    head = [replace(cell, text=cell.text.rstrip(" :：")) for cell in lines[0]] if named else None
    for row, line in zip(block.rows, lines[len(lines) - len(block.rows) :], strict=True):
        pieces = _of_table(line, head)
        same = "".join(piece.text for piece in pieces) == row
        yield pieces if same else [Piece(row, ())]


def _taken(text: str, placed: Iterator[Placed]) -> tuple[Placed, ...]:
    """The next characters of the page, as many as are visible in a cell."""
    return tuple(islice(placed, sum(not character.isspace() for character in text)))


def _cells(line: Line, taken: Sequence[tuple[Placed, ...]]) -> list[Piece]:
    cells = (one_line(cell.text) for cell in line.cells)
    return [Piece(text, placed) for text, placed in zip(cells, taken, strict=True)]


def _of_table(line: Sequence[Piece], head: Sequence[Piece] | None) -> list[Piece]:
    """A row as `tables` writes it: `Header: value; Header: value`, or values alone."""
    pieces = []
    for column, cell in enumerate(line):
        pieces += [Piece("; ")] if column else []
        pieces += [head[column], Piece(": ")] if head and head[column].text else []
        pieces.append(cell)
    return pieces


def _of_row(row: str, pieces: Sequence[Piece]) -> list[Place]:
    """Where each character of a row stands that is its pieces put together and cleaned."""
    known = [place for piece in pieces for place in _of_piece(piece)]
    raw = iter(zip("".join(piece.text for piece in pieces), known, strict=True))
    places: list[Place] = []
    for character in row:
        found = (
            NOWHERE if character.isspace() else next((p for c, p in raw if c == character), None)
        )
        places.append(found)
    return places


def _of_piece(piece: Piece) -> list[Place]:
    """Where each character of a piece stands; of none is it known if one is not found."""
    if piece.placed is None:
        return [NOWHERE] * len(piece.text)
    rest, places = iter(piece.placed), list[Place]()
    for character in piece.text:
        place = NOWHERE if character.isspace() else _next(rest, character)
        if place is None:
            return [None] * len(piece.text)
        places.append(place)
    return places


def _next(placed: Iterator[Placed], character: str) -> Place:
    """The number of the next character, if it is this one; hyphens and the invisible may fall out.

    A hyphen at a line end is of several kinds on the page, and one in the text.
    """
    for found, number in placed:
        if found == character or (character == "-" and found in _HYPHENS):
            return number
        if found not in _HYPHENS and clean(found):
            return None
    return None
