"""What a document is once it has been read, and what a passage of it is.

A document is one string of text with the places where its pages begin. A passage is a stretch of
that string: `document.text[passage.start:passage.end] == passage.text`, always and exactly, counted
in Unicode code points. Nothing here knows files, models or databases.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Page:
    """One page, slide or sheet: its number (from 1) and its half-open stretch of the text."""

    number: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Document:
    """The text of one source, with what is known about it.

    Attributes:
        text: All of the text, as passages and citations count it.
        source: The name that citations carry: the path as given, or any name for text that
            has no file.
        title: A title for people and for the model; readers take it from the file.
        id: A stable name; empty means the source is the name.
        language: `zh`, `en` or empty when unknown.
        contributor: Who brought the document in; caps on the sum count by it.
        access: Labels of which a reader must hold at least one; empty means everyone may read.
        metadata: Further facts, text to text.
        pages: Where the pages lie; empty for formats without pages.
    """

    text: str
    source: str
    title: str = ""
    id: str = ""
    language: str = ""
    contributor: str = ""
    access: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    pages: tuple[Page, ...] = ()

    def page_at(self, offset: int) -> int | None:
        """The number of the page that holds the character at `offset`, if there are pages."""
        for page in self.pages:
            if page.start <= offset < page.end:
                return page.number
        return None


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of a document that retrieval proposes and an answer may rest on.

    Attributes:
        id: Stable name: the same text at the same place of the same source has the same id.
        text: Exactly `document.text[start:end]`.
        title: The document's title.
        source: The document's source.
        page: The page on which the passage begins, or None where there are no pages.
        start: First character, in code points of the document's text.
        end: One past the last character.
        contributor: As in `Document`.
        access: As in `Document`.
    """

    id: str
    text: str
    title: str
    source: str
    page: int | None
    start: int
    end: int
    contributor: str = ""
    access: tuple[str, ...] = ()
