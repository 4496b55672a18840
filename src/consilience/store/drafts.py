"""From a document to passages that are ready to be embedded and committed.

A draft is an origin read and split, in memory. Splitting is `consilience.text`'s, reading is
`consilience.documents`'; what is decided here is a passage's identity and labels, and what makes a
document impossible to store. Knows neither database nor encoder.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from consilience.documents import Document, Passage
from consilience.errors import DocumentError
from consilience.store.access import valid_labels
from consilience.store.base import AddOptions
from consilience.store.embedding import Content, content_of, embedding_text
from consilience.text import language_of, split_passages

RECIPE = 1
"""Raised whenever reading, splitting or `embedding_text` come out differently for the same bytes;
files that are otherwise unchanged are then read again."""


@dataclass(frozen=True, slots=True)
class DraftPassage:
    """A passage with what it is embedded as.

    Attributes:
        passage: The passage as it will be read back.
        embedded: The text that the encoder is given.
        content: Its digest.
    """

    passage: Passage
    embedded: str
    content: Content


@dataclass(frozen=True, slots=True)
class Part:
    """One document of an origin with its passages."""

    document: Document
    passages: tuple[DraftPassage, ...]


@dataclass(frozen=True, slots=True)
class Draft:
    """All that one transaction will put in the place of what the store has under `name`.

    Attributes:
        name: The origin's name.
        is_file: Whether it is a file that can be looked for on disk.
        stamp: Digest of all that the parts were made from.
        parts: Its documents, at least one.
    """

    name: str
    is_file: bool
    stamp: str
    parts: tuple[Part, ...]

    @property
    def passages(self) -> list[DraftPassage]:
        """The passages of all parts, in order."""
        return [passage for part in self.parts for passage in part.passages]


def stamp_of(digest: str, options: AddOptions) -> str:
    """A digest of all that decides what a draft becomes: content, labels, and our own recipe.

    The encoder is not in it: all vectors of a store are of the one encoder that it records.
    """
    described = [RECIPE, digest, options.contributor, sorted(set(options.access))]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def passage_id(source: str, start: int, end: int, text: str) -> str:
    """A name that stays as long as the same text stands at the same place: 16 hex digits."""
    return hashlib.sha256(f"{source}\0{start}\0{end}\0{text}".encode()).hexdigest()[:16]


def split_document(document: Document, options: AddOptions) -> Part:
    """Split a document into passages that carry its labels, or those of `options`.

    Raises:
        DocumentError: It has no source, no visible text, or text that is not Unicode.
    """
    _require_storable(document)
    document = _labelled(document, options)
    spans = split_passages(document.text, breaks=[page.start for page in document.pages])
    return Part(document, tuple(_drafted(document, s.start, s.end) for s in spans))


def keep_whole(passage: Passage, options: AddOptions) -> Part:
    """A passage that comes ready-made, as a document of its own that is not split further.

    Its offsets count in its own text, since the text around it is not known; its id is kept.

    Raises:
        DocumentError: It has neither id nor source, or its text cannot be stored.
    """
    document = _document_around(passage)
    _require_storable(document)
    document = _labelled(document, options)
    draft = _drafted(document, 0, len(document.text))
    kept = replace(draft.passage, id=passage.id or draft.passage.id, page=passage.page)
    return Part(document, (replace(draft, passage=kept),))


def _document_around(passage: Passage) -> Document:
    names = [name for name in (passage.source, passage.id) if name]
    return Document(
        text=passage.text,
        source="#".join(names),
        title=passage.title,
        id=passage.id,
        contributor=passage.contributor,
        access=passage.access,
    )


def _labelled(document: Document, options: AddOptions) -> Document:
    """Fill in what the document does not say of itself."""
    return replace(
        document,
        language=document.language or language_of(document.text),
        contributor=document.contributor or options.contributor,
        access=tuple(document.access) or options.access,
    )


def _require_storable(document: Document) -> None:
    if not document.source.strip():
        raise DocumentError("it has no source", hint="Give the document a source: any name.")
    if not document.text.strip():
        raise DocumentError("it holds no text", hint="Leave it out.")
    if not valid_labels(document.access):
        raise DocumentError(
            f"its access labels are {document.access!r}", hint='Labels are text: access=("staff",).'
        )
    if "\0" in document.source + document.id:
        raise DocumentError(
            "its source or id holds a character of value zero", hint="Give it a name without it."
        )
    about = (document.contributor, document.language, *map(str, document.metadata.values()))
    names = (document.source, document.title, document.id, *document.access, *document.metadata)
    for value in (document.text, *names, *about):
        require_unicode(value)


def require_unicode(text: str) -> None:
    """Refuse text that UTF-8 cannot carry. Raises DocumentError."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DocumentError(
            f"character {error.start} is half of a surrogate pair, which is not text",
            hint="Decode the text again, or drop that character.",
        ) from error


def _drafted(document: Document, start: int, end: int) -> DraftPassage:
    text = document.text[start:end]
    embedded = embedding_text(document.title, text)
    passage = Passage(
        id=passage_id(document.source, start, end, text),
        text=text,
        title=document.title,
        source=document.source,
        page=document.page_at(start),
        start=start,
        end=end,
        contributor=document.contributor,
        access=document.access,
    )
    return DraftPassage(passage, embedded, content_of(embedded))


def find_clash(parts: Sequence[Part]) -> str | None:
    """A source that two of the documents share, which citations could not tell apart."""
    seen: set[str] = set()
    for part in parts:
        if part.document.source in seen:
            return part.document.source
        seen.add(part.document.source)
    return None
