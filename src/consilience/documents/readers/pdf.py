"""PDF through pypdfium2: characters with their places, page by page.

PDFium's own line breaks go wrong where a font is not embedded, as is common in Chinese files, so
lines are found anew from the boxes of characters. Boxes are asked for only where a line or a cell
may end, which keeps a page of three thousand characters at a few milliseconds.
"""

import ctypes
import unicodedata
from collections.abc import Iterator
from typing import Any

from consilience.documents.builder import TextBuilder
from consilience.documents.document import Document
from consilience.documents.layout import Span, blocks_of, heading_of, lines_of
from consilience.documents.normalise import HYPHEN_MARK
from consilience.documents.readers.base import RawFile, extract, finish, title_from
from consilience.errors import DocumentError

_LINE_ENDS = frozenset({10, 13})
_BLANK = 32
_HYPHEN = ord(HYPHEN_MARK)
_BLANKS = frozenset({_BLANK, 160})
_SCAN = "perhaps a scan; run character recognition (OCR) over it first"
_COMPATIBILITY = (range(0xFB00, 0xFB07), range(0x2E80, 0x2FE0), range(0xF900, 0xFB00))
_PLAIN = {
    code: unicodedata.normalize("NFKC", chr(code)) for block in _COMPATIBILITY for code in block
}
"""Ligatures, radicals and doubled ideographs that fonts put where letters and Han are meant."""


Pdf = Any  # of pypdfium2, which ships no types
Box = tuple[float, float, float, float]


def read_pdf(file: RawFile) -> list[Document]:
    """The text of all pages, paragraphs and table rows put together again.

    Raises:
        DocumentError: Encrypted, damaged, or without text.
    """
    pdf = opened_pdf(file.data)
    builder = TextBuilder(file.text_chars)
    title = title_from(_stated_title(pdf))
    for number in range(1, len(pdf) + 1):
        lines = lines_of(_page_spans(pdf, number))
        title = title or heading_of(lines)
        builder.begin_page(number)
        for block in blocks_of(lines):
            builder.add_lines(list(block.rows))
    return finish(file, extract("pdf", builder, title), why_blank=_SCAN)


def opened_pdf(data: bytes) -> Pdf:
    """A PDF by its bytes.

    Raises:
        DocumentError: Encrypted or damaged.
    """
    import pypdfium2 as pdfium

    try:
        return pdfium.PdfDocument(data)
    except pdfium.PdfiumError as error:
        if "password" in str(error).lower():
            raise DocumentError(
                "encrypted: it opens only with a password", hint="save it without a password"
            ) from error
        raise DocumentError(
            f"damaged: not a complete PDF ({error})", hint="save or fetch it again"
        ) from error


def _stated_title(pdf: Pdf) -> str:
    """The title in the metadata, unless a program put the name of a file or of itself there."""
    title: str = pdf.get_metadata_value("Title")
    return "" if title.startswith("Microsoft ") or title.endswith((".doc", ".docx")) else title


def _page_spans(pdf: Pdf, number: int) -> Iterator[Span]:
    """The spans of one page; what PDFium cannot load is a blank page."""
    import pypdfium2 as pdfium

    try:
        page = pdf[number - 1]
        text = page.get_textpage()
    except pdfium.PdfiumError:
        return
    yield from Characters(text, pdfium.raw).spans()
    text.close()
    page.close()


class Characters:
    """The characters of one page, by the numbers under which PDFium knows them.

    Args:
        page: The text of a page, as pypdfium2 has it.
        raw: PDFium's own functions.
    """

    def __init__(self, page: Any, raw: Any) -> None:
        self._page = page
        self._raw = raw
        self._codes: list[int] = [
            raw.FPDFText_GetUnicode(page, index) for index in range(page.count_chars())
        ]

    def spans(self) -> Iterator[Span]:
        """Pieces of text that neither a line break nor a gap divides; a hyphen mark ends one."""
        for start, end in self._stretches():
            yield self._span(start, end)

    def visible(self) -> Iterator[tuple[str, int]]:
        """Every character of the spans but blanks, in their order, with its number.

        A ligature is several characters of one number; of a surrogate pair the first number
        counts.
        """
        for start, end in self._stretches():
            number = start
            while number < end:
                width = 2 if self._is_pair(number, end) else 1
                for character in _decoded(self._codes[number : number + width]):
                    if not character.isspace():
                        yield character, number
                number += width

    def box(self, number: int) -> Box:
        """Left, bottom, right and top of a character, after its font rather than its ink."""
        box = self._raw.FS_RECTF()
        if not self._raw.FPDFText_GetLooseCharBox(self._page, number, ctypes.byref(box)):
            return (0.0, 0.0, 0.0, 0.0)
        return (box.left, box.bottom, box.right, box.top)

    def _stretches(self) -> Iterator[tuple[int, int]]:
        """The first number of each span and the one past its last."""
        start = 0
        for index, code in enumerate(self._codes):
            if code in _LINE_ENDS or (code == _BLANK and self._is_gap(index)):
                yield from self._stretch(start, index)
                start = index + 1
            elif code == _HYPHEN:
                yield from self._stretch(start, index + 1)
                start = index + 1
        yield from self._stretch(start, len(self._codes))

    def _is_pair(self, number: int, end: int) -> bool:
        """Whether the character at `number` is the first half of one that two numbers make."""
        pair = self._codes[number : min(number + 2, end)]
        return len(pair) == 2 and 0xD800 <= pair[0] < 0xDC00 <= pair[1] < 0xE000

    def _is_gap(self, index: int) -> bool:
        """Whether PDFium made the blank up where there is only a distance."""
        return bool(self._raw.FPDFText_IsGenerated(self._page, index) == 1)

    def _stretch(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """From `start` to `end` without blanks around, if any characters are left."""
        while start < end and self._codes[start] in _BLANKS:
            start += 1
        while end > start and self._codes[end - 1] in _BLANKS:
            end -= 1
        if start < end:
            yield start, end

    def _span(self, start: int, end: int) -> Span:
        first, last = self.box(start), self.box(end - 1)
        left, bottom = (min(first[i], last[i]) for i in (0, 1))
        right, top = (max(first[i], last[i]) for i in (2, 3))
        return Span(_decoded(self._codes[start:end]), left, bottom, right, top)


def _decoded(codes: list[int]) -> str:
    """Codes as text; surrogate pairs, which some systems give, become one character."""
    text = "".join(map(chr, codes)).translate(_PLAIN)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
