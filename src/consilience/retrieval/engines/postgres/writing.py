"""One change of a copy in PostgreSQL: the statements of its one transaction.

A copy that is made anew is loaded under another name, indexed when it is full, and takes the old
one's place as the last thing, so that readers wait for that moment only.
"""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, LiteralString

from consilience.errors import RemoteError, UsageError
from consilience.retrieval.engines.base import Delta, Entry, Published, Terms
from consilience.retrieval.engines.postgres.connections import Guard
from consilience.retrieval.engines.postgres.tables import (
    FRESH,
    GRAPH,
    INDEXES,
    MARK,
    TABLES,
    composed,
    name,
)

if TYPE_CHECKING:
    from psycopg import Connection, Cursor
    from psycopg.sql import Composable

EXACT_BELOW = 20_000
"""The number of passages below which every vector is compared, which is exact and fast enough."""

PGVECTOR = (0, 8)
"""The first version that goes on scanning its graph until a filter has let enough through."""

_PASSAGES = {
    "number": "int8",
    "id": "text",
    "source": "text",
    "title": "text",
    "text": "text",
    "page": "int4",
    "start": "int8",
    "end": "int8",
    "contributor": "text",
    "access": "text[]",
    "language": "text",
    "metadata": "jsonb",
    "readers": "text[]",
    "facts": "text[]",
    "title_length": "int4",
    "text_length": "int4",
    "vector": "halfvec",
}
_POSTINGS = {
    "token": "text",
    "number": "int8",
    "in_title": "int4",
    "in_text": "int4",
    "title_length": "int4",
    "text_length": "int4",
}

Known = tuple[Entry, Terms]


class Writing:
    """A change of one copy.

    Args:
        connection: Within the transaction.
        guard: Told whenever a statement has ended.
        schema: The copy.
        exact_below: See `EXACT_BELOW`.
    """

    def __init__(
        self, connection: "Connection[Any]", guard: Guard, schema: str, exact_below: int
    ) -> None:
        self._connection = connection
        self._guard = guard
        self._schema = schema
        self._exact_below = exact_below
        self._title_length = self._text_length = 0
        self._added = 0

    def anew(self, delta: Delta) -> None:
        """Load the copy beside the one that is there, and put it in its place.

        Raises:
            UsageError: A schema of that name is there and is no copy.
            RemoteError: The database has no pgvector that will do.
        """
        old = self._schema
        self._require_copy(old)
        self._require_extension()
        self._schema = f"{old}__next"
        self._run(TABLES)
        self._add(delta)
        self._run(INDEXES)
        self._finish(delta)
        self._schema = old
        self._run("DROP SCHEMA IF EXISTS {schema} CASCADE")
        self._run("ALTER SCHEMA {next} RENAME TO {schema}", next=name(f"{old}__next"))

    def onward(self, delta: Delta) -> None:
        """Take entries out of the copy and put entries in."""
        _register(self._connection)
        lengths = self._run("SELECT title_length, text_length FROM {schema}.state").fetchone()
        assert lengths is not None
        self._title_length, self._text_length = lengths
        self._remove(list(delta.removed))
        self._add(delta)
        self._finish(delta)

    def _remove(self, numbers: list[int]) -> None:
        self._run(
            "WITH gone AS (DELETE FROM {schema}.postings WHERE number = ANY(%s) RETURNING token), "
            "less AS (SELECT token, count(*) AS n FROM gone GROUP BY token) "
            "UPDATE {schema}.terms t SET passages = t.passages - less.n FROM less "
            "WHERE t.token = less.token",
            [numbers],
        )
        self._run("DELETE FROM {schema}.terms WHERE passages = 0")
        gone = self._run(
            "WITH gone AS (DELETE FROM {schema}.passages WHERE number = ANY(%s) "
            "RETURNING title_length, text_length) "
            "SELECT coalesce(sum(title_length), 0), coalesce(sum(text_length), 0) FROM gone",
            [numbers],
        ).fetchone()
        assert gone is not None
        self._title_length -= gone[0]
        self._text_length -= gone[1]

    def _add(self, delta: Delta) -> None:
        self._run(FRESH)
        with self._connection.cursor() as cursor:
            for batch in delta.added:
                known = [(entry, Terms.of(entry.record.passage)) for entry in batch]
                self._copy(cursor, name("fresh"), _POSTINGS, _postings_of(known))
                self._copy(cursor, self._table("passages"), _PASSAGES, map(_row, known))
                self._title_length += sum(terms.title.total() for _, terms in known)
                self._text_length += sum(terms.text.total() for _, terms in known)
                self._added += len(known)
        self._run(
            "INSERT INTO {schema}.postings SELECT number, in_title, in_text, title_length, "
            "text_length, token FROM fresh ORDER BY token, number"
        )
        self._count(whole=delta.whole)

    def _count(self, *, whole: bool) -> None:
        """In how many passages every token now stands."""
        counted: LiteralString = (
            "INSERT INTO {schema}.terms AS t SELECT token, count(*) FROM fresh GROUP BY token"
        )
        merged: LiteralString = (
            " ON CONFLICT (token) DO UPDATE SET passages = t.passages + excluded.passages"
        )
        self._run(counted if whole else counted + merged)

    def _copy(
        self,
        cursor: "Cursor[Any]",
        table: "Composable",
        columns: dict[str, str],
        rows: Iterator[tuple[Any, ...]],
    ) -> None:
        from psycopg import sql

        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(table, names)
        with cursor.copy(statement) as copy:
            copy.set_types(list(columns.values()))
            for row in rows:
                copy.write_row(row)
        self._guard.rest()

    def _finish(self, delta: Delta) -> None:
        """Index the vectors where there are many, and write the state, last."""
        reached = delta.reached()
        self._index_vectors(reached)
        self._run("DELETE FROM {schema}.state")
        self._run(
            "INSERT INTO {schema}.state (published, title_length, text_length) VALUES (%s, %s, %s)",
            (json.dumps(reached.to_dict()), self._title_length, self._text_length),
        )
        if 10 * (self._added + len(delta.removed)) > reached.passages:
            for table in ("passages", "postings"):
                self._run("ANALYZE {table}", table=self._table(table))

    def _index_vectors(self, reached: Published) -> None:
        if reached.dimension and reached.passages >= self._exact_below:
            self._run("SET LOCAL maintenance_work_mem = '512MB'")
            self._run(GRAPH, dimension=reached.dimension)

    def _table(self, table: str) -> "Composable":
        from psycopg import sql

        return sql.Identifier(self._schema, table)

    def _require_copy(self, schema: str) -> None:
        """What is replaced must be a copy; a schema that is none is somebody's and stays."""
        sql = "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = %s"
        row = self._connection.execute(sql, (schema,)).fetchone()
        if row is not None and row[0] != MARK:
            raise UsageError(
                f"the database has a schema {schema!r} that is no copy",
                hint="name another copy at the end of the URL: ?copy=NAME",
            )

    def _require_extension(self) -> None:
        """The extension, new enough; made where it may be made."""
        from psycopg import errors

        try:
            with self._connection.transaction():
                self._connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except (errors.UndefinedFile, errors.FeatureNotSupported, errors.InsufficientPrivilege):
            raise RemoteError(
                "the database has no extension vector, and it cannot be made",
                hint="install pgvector on the server, and let its administrator type: "
                "CREATE EXTENSION vector",
            ) from None
        require_version(_version(self._connection))
        _register(self._connection)

    def _run(
        self, text: LiteralString, values: Sequence[Any] | None = None, **parts: Any
    ) -> "Cursor[Any]":
        cursor = self._connection.execute(composed(text, self._schema, **parts), values)
        self._guard.rest()
        return cursor


def require_version(found: str) -> None:
    """Refuse a pgvector that would answer filtered questions with too few passages.

    Raises:
        RemoteError: It is too old.
    """
    if tuple(int(part) for part in found.split(".")[:2]) < PGVECTOR:
        raise RemoteError(
            f"the database has pgvector {found}, at least {'.'.join(map(str, PGVECTOR))} is needed",
            hint="install a newer one on the server, then type: ALTER EXTENSION vector UPDATE",
        )


def _version(connection: "Connection[Any]") -> str:
    sql = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
    row = connection.execute(sql).fetchone()
    assert row is not None
    return str(row[0])


def _register(connection: "Connection[Any]") -> None:
    """Teach a connection to send vectors."""
    from pgvector.psycopg import register_vector

    register_vector(connection)


def _row(known: Known) -> tuple[Any, ...]:
    from pgvector import HalfVector
    from psycopg.types.json import Jsonb

    entry, terms = known
    record, passage = entry.record, entry.record.passage
    return (
        entry.number,
        passage.id,
        *map(_storable, (passage.source, passage.title, passage.text)),
        passage.page,
        passage.start,
        passage.end,
        _storable(passage.contributor),
        [*map(_storable, passage.access)],
        _storable(record.language),
        Jsonb({_storable(key): _storable(value) for key, value in record.metadata.items()}),
        entry.readers,
        entry.facts,
        terms.title.total(),
        terms.text.total(),
        HalfVector(entry.vector),
    )


def _postings_of(known: Sequence[Known]) -> Iterator[tuple[Any, ...]]:
    for entry, terms in known:
        lengths = (terms.title.total(), terms.text.total())
        for token in terms.title.keys() | terms.text.keys():
            yield (token, entry.number, terms.title[token], terms.text[token], *lengths)


def _storable(text: str) -> str:
    """Text without the one character that PostgreSQL refuses, at the same length."""
    return text.replace("\x00", "\ufffd")
