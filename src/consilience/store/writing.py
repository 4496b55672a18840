"""Every change of a store: one function, one transaction, one step of the sequence.

Either all of a change is on disk or none of it, and indexes hear of it through the sequence it
takes. Embedding, reading and splitting have happened before a function here is called, so the write
lock is held for milliseconds.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice

import apsw

from consilience.documents import Document
from consilience.errors import DocumentError
from consilience.store import rows
from consilience.store.base import RemoveReport
from consilience.store.connection import Database, read_meta, set_patience, write_meta
from consilience.store.drafts import Draft, DraftPassage, Part, find_clash
from consilience.store.embedding import Content, require_same
from consilience.store.queries import missing_source

Vectors = Mapping[Content, bytes]
"""fp16 vectors by the digest of the text they were made from."""


def put(database: Database, draft: Draft, vectors: Vectors, *, fingerprint: str) -> bool:
    """Put a draft in the place of what the store holds under its name.

    Returns:
        Whether it replaced something.

    Raises:
        DocumentError: A source or a passage id of it is taken, by itself or by another origin.
        FingerprintError: The store's vectors have become another encoder's since.
    """
    with database.transaction() as connection:
        require_same(database.path.parent, read_meta(connection, "fingerprint"), fingerprint)
        _record_encoder(connection, fingerprint, vectors[draft.passages[0].content])
        _require_unclaimed(connection, draft)
        sequence = _advance(connection)
        replaced = _documents_of(connection, draft.name)
        _bury(connection, replaced, sequence)
        connection.execute("DELETE FROM origins WHERE name = ?", (draft.name,))
        _insert(connection, draft, vectors, sequence)
        _unstage(connection, draft, fingerprint)
    return bool(replaced)


def remove(database: Database, names: Sequence[str]) -> RemoveReport:
    """Remove sources: documents, whole files, or with a `/` at the end all files below a folder.

    Raises:
        MissingError: One of the names is unknown; then nothing is removed.
    """
    with database.transaction() as connection:
        doomed = {n for name in names for n in _named(connection, database, name)}
        removed = _names_of(connection, doomed)
        sequence = _advance(connection) if doomed else read_meta(connection, "sequence")
        passages = _bury(connection, doomed, sequence)
        _forget(connection, doomed)
    _fold_log(database)
    return RemoveReport(removed, passages, sequence)


def stage(database: Database, vectors: Vectors, *, fingerprint: str) -> None:
    """Keep vectors of work that is not finished; the sequence does not move."""
    with database.transaction() as connection:
        for vector in islice(vectors.values(), 1):
            _record_encoder(connection, fingerprint, vector)
        connection.executemany(
            "INSERT OR REPLACE INTO staged VALUES (?, ?, ?)",
            [(fingerprint, content, vector) for content, vector in vectors.items()],
        )


def configure(database: Database, settings: str) -> None:
    """Keep settings, as JSON; the sequence does not move."""
    with database.transaction() as connection:
        write_meta(connection, "settings", settings)


def swap(database: Database, *, fingerprint: str, dimension: int) -> bool:
    """Give every passage its staged vector of another encoder, and a new number with it.

    A row under a number never changes, so an index sees all old rows go and all new ones come.

    Returns:
        False, and nothing has changed, when a passage came in whose vector is not staged.
    """
    with database.transaction() as connection:
        if next(unstaged(connection, fingerprint), None):
            return False
        sequence = _advance(connection)
        connection.execute(
            "INSERT INTO tombstones SELECT number, sequence, ? FROM passages", (sequence,)
        )
        _renumber(connection, fingerprint, sequence)
        write_meta(connection, "fingerprint", fingerprint)
        write_meta(connection, "dimension", dimension)
        connection.execute("DELETE FROM staged")
    _fold_log(database)
    return True


def unstaged(connection: apsw.Connection, fingerprint: str) -> apsw.Cursor:
    """Content, title and text of passages that have no staged vector, of equal ones of one."""
    return connection.execute(
        "SELECT p.content, d.title, p.text FROM passages p JOIN documents d "
        "ON d.number = p.document WHERE p.content NOT IN "
        "(SELECT content FROM staged WHERE fingerprint = ?) GROUP BY p.content",
        (fingerprint,),
    )


def _advance(connection: apsw.Connection) -> int:
    sequence: int = read_meta(connection, "sequence") + 1
    write_meta(connection, "sequence", sequence)
    return sequence


def _record_encoder(connection: apsw.Connection, fingerprint: str, vector: bytes) -> None:
    """The first vector that a store keeps decides whose vectors it holds."""
    if not read_meta(connection, "fingerprint"):
        write_meta(connection, "fingerprint", fingerprint)
        write_meta(connection, "dimension", len(vector) // 2)


def _require_unclaimed(connection: apsw.Connection, draft: Draft) -> None:
    clash = find_clash(draft.parts)
    if clash is not None:
        raise DocumentError(
            f"two of its documents have the source {clash!r}", hint="Give each its own source."
        )
    sources = tuple(part.document.source for part in draft.parts)
    sql = (
        "SELECT d.source, o.name FROM documents d JOIN origins o ON o.number = d.origin "
        "WHERE d.source IN carray(?) AND o.name <> ? LIMIT 1"
    )
    for source, owner in connection.execute(sql, (apsw.carray(sources), draft.name)):
        raise DocumentError(
            f"the source {source!r} is already in the store, from {owner!r}",
            hint=f"consilience remove {owner}",
        )


def _documents_of(connection: apsw.Connection, name: str) -> set[int]:
    sql = "SELECT number FROM documents WHERE origin = (SELECT number FROM origins WHERE name = ?)"
    return {number for (number,) in connection.execute(sql, (name,))}


def _named(connection: apsw.Connection, database: Database, name: str) -> set[int]:
    """The documents that a name given to `remove` means."""
    sql = (
        "SELECT d.number FROM documents d JOIN origins o ON o.number = d.origin "
        "WHERE d.source = ?1 OR o.name = ?1 "
        "OR (substr(?1, -1) = '/' AND o.is_file AND substr(o.name, 1, length(?1)) = ?1)"
    )
    found = {number for (number,) in connection.execute(sql, (name,))}
    if not found:
        raise missing_source(connection, database.path.parent, name)
    return found


def _names_of(connection: apsw.Connection, documents: set[int]) -> list[str]:
    """Their sources, or their origin's name where it goes with all its documents."""
    sql = (
        "SELECT d.number, d.source, o.name, count(*) OVER (PARTITION BY o.number) "
        "FROM documents d JOIN origins o ON o.number = d.origin WHERE o.number IN "
        "(SELECT origin FROM documents WHERE number IN carray(?))"
    )
    found = list(connection.execute(sql, (rows.numbers_array(documents),)))
    chosen = [row for row in found if row[0] in documents]
    share = Counter(name for _, _, name, _ in chosen)
    return sorted({name if share[name] == n else source for _, source, name, n in chosen})


def _bury(connection: apsw.Connection, documents: Iterable[int], sequence: int) -> int:
    """Leave a tombstone for each passage of the documents; how many there are."""
    sql = "INSERT INTO tombstones SELECT number, sequence, ?2 FROM passages WHERE document = ?1"
    before = connection.total_changes()
    connection.executemany(sql, [(number, sequence) for number in documents])
    return connection.total_changes() - before


def _forget(connection: apsw.Connection, documents: Iterable[int]) -> None:
    """Delete documents; an origin that keeps others is no longer what its stamp says."""
    for number in documents:
        connection.execute(
            "UPDATE origins SET stamp = '' WHERE number = "
            "(SELECT origin FROM documents WHERE number = ?)",
            (number,),
        )
        connection.execute("DELETE FROM documents WHERE number = ?", (number,))
    connection.execute(
        "DELETE FROM origins WHERE stamp = '' AND number NOT IN (SELECT origin FROM documents)"
    )


def _insert(connection: apsw.Connection, draft: Draft, vectors: Vectors, sequence: int) -> None:
    connection.execute(
        "INSERT INTO origins (name, is_file, stamp) VALUES (?, ?, ?)",
        (draft.name, draft.is_file, draft.stamp),
    )
    origin = connection.last_insert_rowid()
    try:
        for part in draft.parts:
            _insert_part(connection, part, vectors, origin=origin, sequence=sequence)
    except apsw.ConstraintError as error:
        raise DocumentError(
            "one of its passages has an id that another passage already has",
            hint="Give each passage its own id, or leave the ids out.",
        ) from error


def _insert_part(
    connection: apsw.Connection, part: Part, vectors: Vectors, *, origin: int, sequence: int
) -> None:
    document = _insert_document(connection, part.document, origin)
    connection.executemany(
        'INSERT INTO passages (document, sequence, id, content, page, start, "end", '
        "contributor, access, vector, text) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [_passage_row(p, vectors[p.content], document, sequence) for p in part.passages],
    )


def _unstage(connection: apsw.Connection, draft: Draft, fingerprint: str) -> None:
    contents = tuple({passage.content for passage in draft.passages})
    connection.execute(
        "DELETE FROM staged WHERE fingerprint = ? AND content IN carray(?)",
        (fingerprint, apsw.carray(contents)),
    )


def _insert_document(connection: apsw.Connection, document: Document, origin: int) -> int:
    columns = f"origin, characters, {rows.DOCUMENT_COLUMNS}"
    values = (origin, len(document.text), *rows.document_row(document))
    marks = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO documents ({columns}) VALUES ({marks})", values)
    return connection.last_insert_rowid()


def _passage_row(
    draft: DraftPassage, vector: bytes, document: int, sequence: int
) -> tuple[str | int | bytes | None, ...]:
    p = draft.passage
    access = rows.labels_column(p.access)
    place = (p.page, p.start, p.end)
    return (document, sequence, p.id, draft.content, *place, p.contributor, access, vector, p.text)


def _renumber(connection: apsw.Connection, fingerprint: str, sequence: int) -> None:
    """Move every passage past the highest number ever used, with its new vector."""
    highest = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'passages'").get or 0
    connection.execute(
        "UPDATE passages SET number = number + ?1, sequence = ?2, vector = "
        "(SELECT s.vector FROM staged s WHERE s.fingerprint = ?3 AND s.content = passages.content)",
        (highest, sequence, fingerprint),
    )
    connection.execute(
        "UPDATE sqlite_sequence SET seq = (SELECT coalesce(max(number), ?) FROM passages) "
        "WHERE name = 'passages'",
        (highest,),
    )


def _fold_log(database: Database) -> None:
    """Fold the log into the database, so that what was removed is gone from the disk as well.

    Where a reader stands in the way it is left to a later commit: nothing waits for this.
    """
    connection = database.connection
    connection.set_busy_timeout(0)
    with database.translated(), suppress(apsw.BusyError, apsw.LockedError):
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    set_patience(connection)
