"""New vectors for everything in a store, with another encoder, while the old ones go on answering.

Vectors are staged batch by batch, which is also what an interrupted run goes on from. When every
passage has one, a single transaction puts them in the place of the old. Passages that other
processes commit meanwhile are found by that transaction and embedded in another round.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice

from consilience.encoding import Encoder
from consilience.store import writing
from consilience.store.base import EmbedReport
from consilience.store.connection import Database
from consilience.store.embedding import embed, embedding_text
from consilience.store.progress import Meter

Batch = dict[bytes, str]
"""Texts to embed, by their digest."""


def re_embed(
    database: Database,
    encoder: Encoder,
    *,
    meter: Meter,
    batch: int,
    cancelled: Callable[[], bool],
) -> EmbedReport:
    """Replace all vectors by those of `encoder`; nothing to do when they are its own already."""
    while database.meta("fingerprint") != encoder.fingerprint:
        for texts in _missing(database, encoder.fingerprint, batch):
            if cancelled():
                return _report(database, encoder, meter, cancelled=True)
            _stage(database, encoder, texts, meter)
        writing.swap(database, fingerprint=encoder.fingerprint, dimension=encoder.dimension)
    return _report(database, encoder, meter, cancelled=False)


def count_missing(database: Database, fingerprint: str) -> tuple[int, int]:
    """How many texts have no staged vector of an encoder, and how many characters they have."""
    sizes = [len(embedding_text(t, text)) for _, t, text in _unstaged(database, fingerprint)]
    return len(sizes), sum(sizes)


def _missing(database: Database, fingerprint: str, size: int) -> Iterator[Batch]:
    rows = _unstaged(database, fingerprint)
    while batch := {content: embedding_text(t, text) for content, t, text in islice(rows, size)}:
        yield batch


def _unstaged(database: Database, fingerprint: str) -> Iterator[tuple[bytes, str, str]]:
    # On a snapshot, since staging goes on while the rows are read.
    with database.translated(), closing(database.snapshot()) as connection:
        yield from writing.unstaged(connection, fingerprint)


def _stage(database: Database, encoder: Encoder, texts: Batch, meter: Meter) -> None:
    vectors = dict(zip(texts, embed(encoder, list(texts.values())), strict=True))
    writing.stage(database, vectors, fingerprint=encoder.fingerprint)
    meter.embed("", len(texts))
    for text in texts.values():
        meter.finish("", len(text), passages=1)


def _report(database: Database, encoder: Encoder, meter: Meter, *, cancelled: bool) -> EmbedReport:
    meter.tell("done")
    return EmbedReport(
        passages=database.execute("SELECT count(*) FROM passages")[0][0],
        embedded=meter.embedded,
        fingerprint=encoder.fingerprint,
        generation=database.meta("sequence"),
        cancelled=cancelled,
    )
