"""Which passages a name leads to, and which lead on from there: a dictionary that follows a store.

Only documents made from knowledge graphs are in it. A name is found in a question as the longest
stretch that some thing is called by, in Chinese at any character and elsewhere between words; a
name with an explanation in brackets is found without it too. Names and things are kept as digests
of 64 bits: nothing readable outlives its removal from the store.

The dictionary is an SQLite file of its own that takes in what the store has committed since it was
looked at last. It is derived: what is damaged, another store's or another recipe's is made anew. It
ranks nothing and decides nothing about who may read what.
"""

import hashlib
import re
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import apsw
import numpy as np
from numpy.typing import NDArray

from consilience.documents.normalise import is_cjk
from consilience.documents.triples import SUBJECT, Triple, iri_of, is_graph, literal_of, told
from consilience.documents.vocabulary import NAMES, TYPE
from consilience.errors import DocumentError
from consilience.retrieval.derived import exclusive
from consilience.store import Record, Store
from consilience.text import fold_han

RECIPE = "links 1"
"""Everything that shapes the file. Raise the number when `normal`, `key` or the tables change."""

LONGEST_NAME = 48
"""Characters of the longest name that is found."""

_LONGEST_QUESTION = 512  # characters; the last ones, since what came before is history
_MARKS = re.compile(r"[^\w]+|_+")
_IN_BRACKETS = re.compile(r"^(.*\S)\s*[（(][^（()）]*[)）]\s*$")
_TABLES = """
CREATE TABLE meta (recipe TEXT NOT NULL, identity TEXT NOT NULL, sequence INTEGER NOT NULL);
CREATE TABLE names (name INTEGER, entity INTEGER, number INTEGER, bare INTEGER);
CREATE TABLE nodes (entity INTEGER, number INTEGER);
CREATE TABLE edges (number INTEGER, entity INTEGER);
CREATE INDEX names_by_name ON names (name);
CREATE INDEX names_by_number ON names (number);
CREATE INDEX nodes_by_entity ON nodes (entity);
CREATE INDEX nodes_by_number ON nodes (number);
CREATE INDEX edges_by_number ON edges (number);
"""


@dataclass(frozen=True, slots=True)
class Mention:
    """A stretch of a question that some thing is called by.

    Attributes:
        start: First character, in the question as `normal` writes it.
        end: One past the last.
        entity: The thing.
        number: The passage that gives it this name.
        bare: Whether the name has an explanation in brackets, which the question lacks.
    """

    start: int
    end: int
    entity: int
    number: int
    bare: bool

    @property
    def length(self) -> int:
        """Characters of the name."""
        return self.end - self.start


class LinkIndex:
    """The dictionary of one store. Threads may share it.

    Args:
        store: The store to follow.
        patience: Seconds to wait while another process changes the file.
    """

    def __init__(self, store: Store, *, patience: float = 5.0) -> None:
        self._store = store
        self._patience = patience
        self._folder = store.path / "derived" / "links"
        self._lock = threading.RLock()
        self._connection: apsw.Connection | None = None
        self._reached = -1

    def follow(self) -> bool:
        """Take in what the store has committed; whether there is any name in the dictionary.

        Where another process is at it, or the file cannot be written, the names are those of the
        last commit that was reached.

        Raises:
            ConsilienceError: The store cannot be read.
        """
        with self._lock:
            if self._reached != self._store.sequence:
                self._catch_up()
            return bool(self._rows("SELECT 1 FROM names LIMIT 1"))

    def mentions(self, question: str) -> list[Mention]:
        """Every stretch of a question by which something is called, long and short, in any order.

        A name that stands there twice is there twice: a longer one may cover one of the two.

        Args:
            question: As `normal` writes it.
        """
        stretches: dict[int, list[tuple[int, int]]] = {}
        for start, end in _stretches(question):
            stretches.setdefault(key(question[start:end]), []).append((start, end))
        return [
            Mention(start, end, entity, number, bool(bare))
            for name, entity, number, bare in self._looked_up(
                "SELECT name, entity, number, bare FROM names WHERE name IN carray(?)", stretches
            )
            for start, end in stretches[name]
        ]

    def passages(self, entities: Iterable[int]) -> dict[int, list[int]]:
        """The numbers of the passages about each of some things."""
        sql = "SELECT entity, number FROM nodes WHERE entity IN carray(?) ORDER BY number"
        return _grouped(self._looked_up(sql, entities))

    def aims(self, numbers: Iterable[int]) -> dict[int, list[int]]:
        """The things that each of some passages leads on to."""
        sql = "SELECT number, entity FROM edges WHERE number IN carray(?) ORDER BY rowid"
        return _grouped(self._looked_up(sql, numbers))

    def _looked_up(self, sql: str, keys: Iterable[int]) -> list[tuple[int, ...]]:
        wanted = list(keys)
        return self._rows(sql, (apsw.carray(_numbers(wanted)),)) if wanted else []

    def _rows(self, sql: str, bindings: tuple[object, ...] = ()) -> list[tuple[int, ...]]:
        """The rows of one statement; none while the file cannot be read."""
        with self._lock, suppress(apsw.Error):
            return list(self._open().execute(sql, bindings))
        return []

    def _open(self) -> apsw.Connection:
        if self._connection is None:
            self._connection = apsw.Connection(str(self._folder / "names.db"))
            self._connection.set_busy_timeout(int(self._patience * 1000))
            # Everything in it can be made anew, so nothing waits for the disk.
            self._connection.execute("PRAGMA synchronous = OFF")
        return self._connection

    def _catch_up(self) -> None:
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            with exclusive(self._folder / "lock", patience=self._patience) as alone:
                if alone:
                    self._caught_up()

    def _caught_up(self) -> None:
        try:
            self._reached = self._take_in()
        except apsw.Error:
            self._start_afresh()
            with suppress(apsw.Error):
                self._reached = self._take_in()

    def _start_afresh(self) -> None:
        """Delete the file; what another process has open of it stays as it was."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        for path in self._folder.glob("names.db*"):
            path.unlink()

    def _take_in(self) -> int:
        """One transaction from the commit that the file is at to the store's last."""
        connection = self._open()
        with connection:
            since = self._since(connection)
            with self._store.changes(since) as changes:
                if changes.sequence < since:
                    raise apsw.MismatchError("the store was put back")
                if changes.sequence > since:
                    _forget(connection, changes.removed)
                    for batch in changes.added:
                        records = changes.records([row.number for row in batch])
                        _add(connection, records)
                    connection.execute("UPDATE meta SET sequence = ?", (changes.sequence,))
        return changes.sequence

    def _since(self, connection: apsw.Connection) -> int:
        """The commit that the file is at; tables are made where there are none."""
        if not connection.execute("SELECT count(*) FROM sqlite_schema").get:
            connection.execute(_TABLES)
            connection.execute("INSERT INTO meta VALUES (?, ?, 0)", (RECIPE, self._store.identity))
        recipe, identity, sequence = connection.execute("SELECT * FROM meta").get
        if (recipe, identity) != (RECIPE, self._store.identity):
            raise apsw.MismatchError("another store's, or another recipe's")
        return int(sequence)


def _forget(connection: apsw.Connection, numbers: list[int]) -> None:
    for table in ("names", "nodes", "edges"):
        if numbers:
            connection.execute(
                f"DELETE FROM {table} WHERE number IN carray(?)", (apsw.carray(_numbers(numbers)),)
            )


def _add(connection: apsw.Connection, records: Mapping[int, Record]) -> None:
    for number, record in records.items():
        rows = _rows_of(record)
        if rows is None:
            continue
        entity, names, aims = rows
        connection.execute("INSERT INTO nodes VALUES (?, ?)", (entity, number))
        connection.executemany(
            "INSERT INTO names VALUES (?, ?, ?, ?)",
            [(key(name), entity, number, bare) for name, bare in names.items()],
        )
        connection.executemany(
            "INSERT INTO edges VALUES (?, ?)", [(number, key(aim)) for aim in aims]
        )


def _rows_of(record: Record) -> tuple[int, dict[str, bool], list[str]] | None:
    """The thing a passage tells of, what it is called, and what it leads on to."""
    if not is_graph(record.metadata):
        return None
    try:
        triples = [triple for row in told(record.metadata) for triple in row]
    except DocumentError:  # metadata that somebody wrote by hand
        return None
    subject = record.metadata[SUBJECT]
    thing = key(record.passage.source if subject.startswith("_:") else subject)
    return thing, names_of(record.passage.title, subject, triples), _aims(subject, triples)


def names_of(title: str, subject: str, triples: Iterable[Triple]) -> dict[str, bool]:
    """What a thing is called, as `normal` writes it, and whether an explanation was left out."""
    called = [title]
    for triple in triples:
        if triple.predicate in NAMES and triple.subject.strip("<>") == subject:
            literal = literal_of(triple.object)
            called += [literal[0]] if literal else []
    shortened = [match[1] for name in called if (match := _IN_BRACKETS.match(name))]
    found = dict.fromkeys(map(normal, shortened), True)
    found |= dict.fromkeys(map(normal, called), False)
    return {name: bare for name, bare in found.items() if 2 <= len(name) <= LONGEST_NAME}


def _aims(subject: str, triples: Iterable[Triple]) -> list[str]:
    aims = (iri_of(triple.object) for triple in triples if triple.predicate != TYPE)
    return [*dict.fromkeys(aim for aim in aims if aim and aim != subject)]


def normal(text: str) -> str:
    """A question or a name as it is compared: one way of writing, words set apart by one blank.

    Width, case, accents and traditional characters are folded; marks become blanks.
    """
    folded = unicodedata.normalize("NFKD", fold_han(unicodedata.normalize("NFKC", text)))
    bare = "".join(c for c in folded if not unicodedata.combining(c)).casefold()
    return " ".join(_MARKS.sub(" ", bare).split())


def key(text: str) -> int:
    """A digest of 64 bits, signed as SQLite has its numbers."""
    digest = hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _stretches(question: str) -> Iterator[tuple[int, int]]:
    """Every stretch that may be a name: it begins and ends where no word is cut."""
    begin = max(0, len(question) - _LONGEST_QUESTION)
    edges = [n for n in range(begin, len(question) + 1) if _is_edge(question, n)]
    for place, start in enumerate(edges):
        for end in edges[place + 1 :]:
            if end - start > LONGEST_NAME:
                break
            if end - start > 1 and " " not in (question[start], question[end - 1]):
                yield start, end


def _is_edge(text: str, place: int) -> bool:
    if place in (0, len(text)):
        return True
    before, after = text[place - 1], text[place]
    return before == " " or after == " " or is_cjk(before) or is_cjk(after)


def _numbers(values: Iterable[int]) -> NDArray[np.int64]:
    return np.array([*values], dtype=np.int64)


def _grouped(pairs: Iterable[tuple[int, ...]]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for one, other in pairs:
        found.setdefault(one, []).append(other)
    return found
