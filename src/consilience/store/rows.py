"""Between rows of the database and the dataclasses of this package.

Labels, metadata and pages are JSON in their columns. Nothing here runs a statement.
"""

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import apsw
import numpy as np
from numpy.typing import NDArray

from consilience.documents import Document, Page, Passage
from consilience.store.base import IndexRow, Record, SourceInfo, Stats

PASSAGE_COLUMNS = (
    'p.id, p.text, d.title, d.source, p.page, p.start, p."end", p.contributor, p.access'
)
RECORD_COLUMNS = f"{PASSAGE_COLUMNS}, d.contributor, d.language, d.metadata"
INDEX_COLUMNS = "p.number, d.title, p.text, p.vector, p.access, p.contributor"
DOCUMENT_COLUMNS = "text, source, title, id, language, contributor, access, metadata, pages"


def numbers_array(numbers: Iterable[int]) -> "apsw.CArrayBinding":
    """Numbers as one binding, for `IN carray(?)`; none become 0, which no row has."""
    return apsw.carray(np.array(list(numbers) or [0], dtype=np.int64))


@lru_cache(maxsize=4096)
def labels_from(column: str) -> tuple[str, ...]:
    """Access labels out of their column; few distinct ones are read over and over."""
    return tuple(json.loads(column))


def labels_column(access: tuple[str, ...]) -> str:
    """Access labels for their column: sorted, each once."""
    return json.dumps(sorted(set(access)), ensure_ascii=False)


def pages_column(pages: tuple[Page, ...]) -> str:
    """Pages for their column."""
    return json.dumps([[page.number, page.start, page.end] for page in pages])


def metadata_column(metadata: Mapping[str, str]) -> str:
    """Metadata for its column."""
    return json.dumps(dict(metadata), sort_keys=True)


def passage_from(row: tuple[Any, ...]) -> Passage:
    """A passage out of a row of `PASSAGE_COLUMNS`."""
    id_, text, title, source, page, start, end, contributor, access = row
    labels = labels_from(access)
    return Passage(id_, text, title, source, page, start, end, contributor, labels)


def record_from(row: tuple[Any, ...]) -> Record:
    """A record out of a row of `RECORD_COLUMNS`."""
    *passage, contributor, language, metadata = row
    return Record(passage_from(tuple(passage)), contributor, language, json.loads(metadata))


def index_row_from(row: tuple[Any, ...]) -> IndexRow:
    """An index row out of a row of `INDEX_COLUMNS`."""
    number, title, text, vector, access, contributor = row
    return IndexRow(number, title, text, vector_from(vector), labels_from(access), contributor)


def document_from(row: tuple[Any, ...]) -> Document:
    """A document out of a row of `DOCUMENT_COLUMNS`."""
    text, source, title, id_, language, contributor, access, metadata, pages = row
    return Document(
        text=text,
        source=source,
        title=title,
        id=id_,
        language=language,
        contributor=contributor,
        access=labels_from(access),
        metadata=MappingProxyType(json.loads(metadata)),
        pages=tuple(Page(*page) for page in json.loads(pages)),
    )


def source_from(row: tuple[Any, ...]) -> SourceInfo:
    """What `Store.sources` tells of a document."""
    source, title, language, contributor, access, origin, characters, passages = row
    labels = labels_from(access)
    return SourceInfo(source, title, language, contributor, labels, origin, characters, passages)


def vector_from(column: bytes) -> NDArray[np.float16]:
    """A vector out of its column, `[dimension]`, not writable."""
    return np.frombuffer(column, dtype="<f2")


def stats_from(documents: int, passages: int, characters: int, size: int, meta: str) -> Stats:
    """Statistics out of counts and of `meta` as one JSON object."""
    known = json.loads(meta)
    return Stats(
        documents=documents,
        passages=passages,
        characters=characters,
        bytes=size,
        sequence=known["sequence"],
        fingerprint=known["fingerprint"],
        dimension=known["dimension"],
        schema=known["schema"],
        created_by=known["created_by"],
    )


def document_row(document: Document) -> tuple[str, ...]:
    """The values of a document for `DOCUMENT_COLUMNS`."""
    return (
        document.text,
        document.source,
        document.title,
        document.id,
        document.language,
        document.contributor,
        labels_column(document.access),
        metadata_column(document.metadata),
        pages_column(document.pages),
    )
