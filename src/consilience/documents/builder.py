"""Extracted pieces put together into one text, with the places of its pages.

The builder knows how blocks are set apart and how long the text may get. It does not know formats:
readers hand it blocks in reading order.
"""

from consilience.documents.document import Page
from consilience.documents.normalise import clean
from consilience.errors import DocumentError

BLOCK = "\n\n"
"""Sets paragraphs apart; a sentence never crosses it."""

LINE = "\n"
"""Sets the rows of a table and the items of a list apart."""


def too_long(limit: int) -> DocumentError:
    """The error of a document whose text is longer than allowed."""
    return DocumentError(
        f"holds more than {limit:,} characters of text", hint="split the file into smaller ones"
    )


class TextBuilder:
    """Collects blocks of text and remembers where each page begins and ends.

    Args:
        limit: The most code points that the text may have.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[str] = []
        self._length = 0
        self._pages: list[Page] = []
        self._page: int | None = None
        self._page_start: int | None = None

    def add(self, block: str, *, gap: str = BLOCK) -> None:
        """Append one cleaned block after `gap`; a block without visible text adds nothing.

        Raises:
            DocumentError: The text has become longer than the limit.
        """
        block = clean(block).strip()
        if not block:
            return
        if self._pieces:
            self._push(BLOCK if self._page_is_blank() else gap)
        if self._page_is_blank():
            self._page_start = self._length
        self._push(block)

    def add_lines(self, lines: list[str]) -> None:
        """Append lines that belong together, one below the other."""
        for index, line in enumerate(lines):
            self.add(line, gap=LINE if index else BLOCK)

    def begin_page(self, number: int) -> None:
        """End the page before, if there is one, and begin the page `number`."""
        self.end_page()
        self._page = number

    def end_page(self) -> None:
        """Close the open page; a page on which nothing was written is left out."""
        if self._page is not None and self._page_start is not None:
            self._pages.append(Page(self._page, self._page_start, self._length))
        self._page = self._page_start = None

    def text(self) -> str:
        """Everything added so far."""
        return "".join(self._pieces)

    def pages(self) -> tuple[Page, ...]:
        """The pages that hold text, in order."""
        self.end_page()
        return tuple(self._pages)

    def _page_is_blank(self) -> bool:
        return self._page is not None and self._page_start is None

    def _push(self, piece: str) -> None:
        self._length += len(piece)
        if self._length > self._limit:
            raise too_long(self._limit)
        self._pieces.append(piece)
