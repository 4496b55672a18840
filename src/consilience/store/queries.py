"""Reading a store: every answer is one committed state, never a mixture of two.

Functions over a `Database`; a single statement is a snapshot by itself, and what needs several
statements reads them on a snapshot connection. Nothing here writes.
"""

import difflib
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import apsw
import numpy as np

from consilience.documents import Document, Passage
from consilience.errors import MissingError
from consilience.store import rows
from consilience.store.base import Changes, IndexRow, Record, SourceInfo, Stats, VectorRows
from consilience.store.connection import Database, read_meta

BATCH = 1024
"""Rows that `changes` hands over at a time."""

_FROM_PASSAGES = "FROM passages p JOIN documents d ON d.number = p.document"


def changes_since(database: Database, since: int) -> Changes:
    """What happened after the commit `since`, on one snapshot."""
    connection = database.snapshot()
    with database.translated():
        removed = _removed_since(connection, since)
        return Changes(
            sequence=read_meta(connection, "sequence"),
            removed=[number for number, _ in removed],
            died=[died for _, died in removed],
            added=_added_since(database, connection, since),
            rows=_count_since(connection, since),
            fingerprint=read_meta(connection, "fingerprint"),
            dimension=read_meta(connection, "dimension"),
            records=partial(_records, database, connection),
            close=connection.close,
        )


def _removed_since(connection: apsw.Connection, since: int) -> list[tuple[int, int]]:
    sql = "SELECT number, died FROM tombstones WHERE died > ?1 AND born <= ?1 ORDER BY number"
    return [(number, died) for number, died in connection.execute(sql, (since,))]


def _records(
    database: Database, connection: apsw.Connection, numbers: Sequence[int]
) -> dict[int, Record]:
    sql = f"SELECT p.number, {rows.RECORD_COLUMNS} {_FROM_PASSAGES} WHERE p.number IN carray(?)"
    with database.translated():
        found = connection.execute(sql, (rows.numbers_array(numbers),))
        return {row[0]: rows.record_from(row[1:]) for row in found}


def _count_since(connection: apsw.Connection, since: int) -> int:
    count: int = connection.execute(
        "SELECT count(*) FROM passages WHERE sequence > ?", (since,)
    ).get
    return count


def _added_since(
    database: Database, connection: apsw.Connection, since: int
) -> Iterator[list[IndexRow]]:
    # Numbers grow with the sequence, so this order is by number and needs no sorting of texts.
    sql = (
        f"SELECT {rows.INDEX_COLUMNS} {_FROM_PASSAGES} WHERE p.sequence > ? "
        "ORDER BY p.sequence, p.number"
    )
    try:
        with database.translated():
            cursor = connection.execute(sql, (since,))
            while batch := [rows.index_row_from(row) for row in islice(cursor, BATCH)]:
                yield batch
    finally:
        connection.close()


def passages_by_number(database: Database, numbers: Sequence[int]) -> dict[int, Passage]:
    """The passages that still exist, in the order asked for."""
    sql = f"SELECT p.number, {rows.PASSAGE_COLUMNS} {_FROM_PASSAGES} WHERE p.number IN carray(?)"
    found = {
        row[0]: rows.passage_from(row[1:])
        for row in database.execute(sql, (rows.numbers_array(numbers),))
    }
    return {number: found[number] for number in map(int, numbers) if number in found}


def vectors_by_number(database: Database, numbers: Sequence[int]) -> VectorRows:
    """The vectors of the passages that still exist, by ascending number."""
    sql = "SELECT number, vector FROM passages WHERE number IN carray(?) ORDER BY number"
    found = database.execute(sql, (rows.numbers_array(numbers),))
    width = len(found[0][1]) // 2 if found else int(database.meta("dimension"))
    return VectorRows(
        np.fromiter((number for number, _ in found), dtype=np.int64, count=len(found)),
        np.frombuffer(b"".join(v for _, v in found), dtype="<f2").reshape(len(found), width),
    )


def numbers_by_id(database: Database, ids: Sequence[str]) -> dict[str, int]:
    """The numbers of the passages that still exist."""
    if not ids:
        return {}
    sql = "SELECT id, number FROM passages WHERE id IN carray(?)"
    return dict(database.execute(sql, (apsw.carray(tuple(ids)),)))


def passage_by_id(database: Database, id_: str) -> Passage:
    """The passage of that id. Raises MissingError when there is none."""
    sql = f"SELECT {rows.PASSAGE_COLUMNS} {_FROM_PASSAGES} WHERE p.id = ?"
    found = database.execute(sql, (id_,))
    if not found:
        folder = database.path.parent
        raise MissingError(
            f"there is no passage {id_!r} in the store at {folder}",
            hint=f"consilience search WORDS --store {folder} shows passages with their ids.",
        )
    return rows.passage_from(found[0])


def document_by_source(database: Database, source: str) -> Document:
    """The document of that source. Raises MissingError when there is none."""
    sql = f"SELECT {rows.DOCUMENT_COLUMNS} FROM documents WHERE source = ?"
    found = database.execute(sql, (source,))
    if not found:
        raise missing_source(database.connection, database.path.parent, source)
    return rows.document_from(found[0])


def missing_source(connection: apsw.Connection, folder: Path, source: str) -> MissingError:
    """The error for a source that is not there, with the names that look like it."""
    sql = "SELECT source FROM documents UNION SELECT name FROM origins"
    names = [name for (name,) in connection.execute(sql)]
    close = difflib.get_close_matches(source, names, n=3)
    hint = f"Did you mean {' or '.join(close)}?" if close else f"consilience show --store {folder}"
    return MissingError(f"there is no source {source!r} in the store at {folder}", hint=hint)


def stamp_of_origin(database: Database, name: str) -> str:
    """The stamp of an origin; empty when there is none, or some of its documents are gone."""
    found = database.execute("SELECT stamp FROM origins WHERE name = ?", (name,))
    return str(found[0][0]) if found else ""


def all_sources(database: Database) -> list[SourceInfo]:
    """Every document, by source."""
    return [
        rows.source_from(row)
        for row in database.execute(
            "SELECT d.source, d.title, d.language, d.contributor, d.access, o.name, d.characters, "
            "(SELECT count(*) FROM passages p WHERE p.document = d.number) "
            "FROM documents d JOIN origins o ON o.number = d.origin ORDER BY d.source"
        )
    ]


def statistics(database: Database) -> Stats:
    """The store in numbers, from one statement."""
    sql = (
        "SELECT (SELECT count(*) FROM documents), (SELECT count(*) FROM passages), "
        "(SELECT coalesce(sum(characters), 0) FROM documents), "
        "(SELECT json_group_object(key, value) FROM meta)"
    )
    documents, passages, characters, meta = database.execute(sql)[0]
    return rows.stats_from(documents, passages, characters, _size(database.path), meta)


def _size(path: Path) -> int:
    files = (path, path.with_name(f"{path.name}-wal"))
    return sum(file.stat().st_size for file in files if file.exists())
