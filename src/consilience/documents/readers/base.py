"""What a reader is: a function from the bytes of one file to its documents.

A reader runs inside the confined child process. It may raise anything over a damaged file; only
what it can explain does it raise as a `DocumentError`. Parsing libraries are imported inside the
functions that use them, so that the table of readers costs nothing to load.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from consilience.documents.builder import TextBuilder, too_long
from consilience.documents.document import Document, Page
from consilience.documents.formats import Format
from consilience.documents.normalise import one_line, storable
from consilience.errors import DocumentError
from consilience.text import language_of

_LONGEST_TITLE = 300
_NO_TITLES = frozenset(
    {"untitled", "(anonymous)", "word document", "powerpoint presentation", "document", "无标题"}
)
"""What programs write into the title field when nobody gave a title."""


@dataclass(frozen=True, slots=True)
class RawFile:
    """The bytes of one file, and what is known about it without reading them.

    Attributes:
        data: All bytes.
        source: The source that its documents get.
        stem: Its name without the suffix, the title of last resort.
        suffix: What its name ends in, in lower case, with the dot.
        text_chars: The most code points that the text of one document may have.
    """

    data: bytes
    source: str
    stem: str
    suffix: str
    text_chars: int


class Reader(Protocol):
    """Reads files of one format."""

    def __call__(self, file: RawFile) -> Iterable[Document]:
        """The documents that the file holds, at least one.

        Raises:
            DocumentError: A reason that can be put into words.
        """
        ...


@dataclass(frozen=True, slots=True)
class Extract:
    """What a reader took out of a file with a single document.

    Attributes:
        format: What the file was.
        text: All of its text.
        title: A title that the file itself gives, or nothing.
        pages: Where its pages lie.
    """

    format: Format
    text: str
    title: str = ""
    pages: tuple[Page, ...] = ()


def extract(format: Format, builder: TextBuilder, title: str = "") -> Extract:  # noqa: A002
    """What a builder has collected."""
    return Extract(format, builder.text(), title, builder.pages())


def finish(file: RawFile, found: Extract, *, why_blank: str = "") -> list[Document]:
    """The one document of a file, with its language and a title.

    Args:
        file: The file.
        found: What was taken out of it.
        why_blank: The likely reason, if there turns out to be no text.

    Raises:
        DocumentError: No visible text, or too much of it.
    """
    if not found.text.strip():
        raise DocumentError("holds no text" + (f": {why_blank}" if why_blank else ""))
    if len(found.text) > file.text_chars:
        raise too_long(file.text_chars)
    document = Document(
        text=found.text,
        source=file.source,
        title=title_from(found.title) or file.stem,
        language=language_of(found.text),
        metadata={"format": found.format},
        pages=found.pages,
    )
    return [document]


def title_from(candidate: str) -> str:
    """A title fit to show, or nothing where the candidate says nothing."""
    title = storable(one_line(candidate))[:_LONGEST_TITLE].strip()
    return "" if title.lower() in _NO_TITLES else title
