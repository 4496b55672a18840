"""Whether a store holds what it must: the checks behind `consilience doctor`.

Every check is a rule that the code that writes keeps by construction, so a problem found here means
a damaged disk, a foreign hand or a mistake of ours. Nothing is repaired.
"""

from collections.abc import Iterator
from contextlib import closing

import apsw

from consilience.errors import ConsilienceError
from consilience.store.base import Problem
from consilience.store.connection import Database
from consilience.store.embedding import content_of, embedding_text
from consilience.store.schema import CREATE

_ROWS = """
SELECT d.source, d.title, d.text, p.number, p.content, p.start, p."end", p.text
FROM passages p JOIN documents d ON d.number = p.document ORDER BY d.number, p.start
"""

_META = "(SELECT value FROM meta WHERE key = '{}')"

_RULES = (
    ("origins", "without documents", "number NOT IN (SELECT origin FROM documents)"),
    ("documents", "without passages", "number NOT IN (SELECT document FROM passages)"),
    ("passages", "with a removed number", "number IN (SELECT number FROM tombstones)"),
    ("passages", "from a commit to come", f"sequence > {_META.format('sequence')}"),
    (
        "passages",
        "with a vector of wrong size",
        f"length(vector) <> 2 * {_META.format('dimension')}",
    ),
)
"""Table, what its rows must not be, and the condition that finds those that are."""


def check(database: Database) -> list[Problem]:
    """All that is wrong, as of one snapshot; empty when nothing is."""
    try:
        with closing(database.snapshot()) as connection, database.translated():
            return list(_problems(connection))
    except ConsilienceError as error:
        return [Problem("database", error.message)]


def _problems(connection: apsw.Connection) -> Iterator[Problem]:
    yield from _damage(connection)
    yield from _shape(connection)
    yield from _broken_rules(connection)
    yield from _wrong_passages(connection)


def _damage(connection: apsw.Connection) -> Iterator[Problem]:
    for (message,) in connection.execute("PRAGMA integrity_check(20)"):
        if message != "ok":
            yield Problem("database", message)
    for table, row, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        yield Problem(table, f"row {row} belongs to a row of {parent} that is not there")


def _shape(connection: apsw.Connection) -> Iterator[Problem]:
    """Tables, indexes, triggers and views, against those that this version makes."""
    with closing(apsw.Connection(":memory:")) as fresh:
        fresh.execute(CREATE)
        expected, found = _objects(fresh), _objects(connection)
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            yield Problem(name, "is not defined as this version defines it")


def _objects(connection: apsw.Connection) -> dict[str, str]:
    sql = "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL"
    return {str(name): str(definition) for name, definition in connection.execute(sql)}


def _broken_rules(connection: apsw.Connection) -> Iterator[Problem]:
    for table, message, condition in _RULES:
        count = connection.execute(f"SELECT count(*) FROM {table} WHERE {condition}").get
        if count:
            yield Problem(table, f"{count} {message}")


def _wrong_passages(connection: apsw.Connection) -> Iterator[Problem]:
    for source, title, whole, number, content, start, end, text in connection.execute(_ROWS):
        if whole[start:end] != text:
            yield Problem(source, f"passage {number} is not the text from {start} to {end}")
        if content_of(embedding_text(title, text)) != content:
            yield Problem(source, f"passage {number} has the vector of another text")
