"""PostgreSQL as an engine: which transaction a question or a change is.

Every change of a copy is one transaction behind one advisory lock, so readers need no care at all:
their snapshot is one commit. What is in the transactions is `reading`'s and `writing`'s.
"""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from consilience.retrieval.engines.address import Address
from consilience.retrieval.engines.base import (
    Answer,
    Delta,
    Limits,
    MovedError,
    Published,
    UnavailableError,
    View,
    unpublished,
)
from consilience.retrieval.engines.persistence import persistently
from consilience.retrieval.engines.postgres.connections import Connections
from consilience.retrieval.engines.postgres.reading import PostgresEntries
from consilience.retrieval.engines.postgres.tables import composed
from consilience.retrieval.engines.postgres.writing import EXACT_BELOW, Writing
from consilience.retrieval.engines.viewing import CommitView
from consilience.retrieval.tuning import Tuning
from consilience.text import TOKENS

if TYPE_CHECKING:
    from psycopg import Connection


class PostgresEngine:
    """An `Engine` in PostgreSQL. Threads may share it.

    Args:
        address: Of the scheme `postgresql`; its copy is the name of the schema.
        limits: How long it is waited for.
        exact_below: See `EXACT_BELOW`.

    Raises:
        DependencyError: psycopg or pgvector is not installed.
    """

    def __init__(
        self, address: Address, *, limits: Limits | None = None, exact_below: int = EXACT_BELOW
    ) -> None:
        self._limits = limits or Limits()
        self._connections = Connections(address, self._limits)
        self._shown = address.shown
        self._schema = address.copy
        self._exact_below = exact_below

    @property
    def shown(self) -> str:
        """Its address without password."""
        return self._shown

    @property
    def most_steps(self) -> int:
        """As many as there are: a change leaves nothing behind."""
        return sys.maxsize

    def recipe(self, tuning: Tuning) -> str:  # noqa: ARG002 every number of it is free here
        """The tokens alone: k1, b and the weight of titles are chosen with each question."""
        return f"tokens {TOKENS}"

    def state(self) -> Published | None:
        """The state of the copy, or None; see `Engine.state`."""
        return persistently(self._state, self._limits)

    def read(self, ask: Callable[[View], Answer]) -> Answer:
        """Ask within one snapshot of the database; see `Engine.read`."""
        return persistently(lambda: self._read(ask), self._limits)

    def publish(self, delta: Delta) -> None:
        """Change the copy in one transaction; see `Engine.publish`."""
        with self._connections.change() as (connection, guard):
            _lock(connection, self._schema)
            if delta.before is not None and _state(connection, self._schema) != delta.before:
                raise MovedError(f"someone else has published to {self._shown}")
            writing = Writing(connection, guard, self._schema, self._exact_below)
            (writing.anew if delta.whole else writing.onward)(delta)

    def close(self) -> None:
        """Let go of the server."""
        self._connections.close()

    def _state(self) -> Published | None:
        with self._connections.snapshot() as connection:
            return _state(connection, self._schema)

    def _read(self, ask: Callable[[View], Answer]) -> Answer:
        with self._connections.snapshot() as connection:
            state = _state(connection, self._schema)
            if state is None:
                raise unpublished(self._shown)
            entries = PostgresEntries(connection, self._schema, state)
            return ask(CommitView(entries, state))


def _state(connection: "Connection[Any]", schema: str) -> Published | None:
    known = connection.execute("SELECT to_regclass(%s)", (f"{schema}.state",)).fetchone()
    if known is None or known[0] is None:
        return None
    row = connection.execute(composed("SELECT published FROM {schema}.state", schema)).fetchone()
    if row is None:  # a copy made anew took the name after this snapshot, which sees none of it
        raise UnavailableError(f"the copy {schema} was replaced meanwhile", hint="Ask again.")
    return Published.parse(row[0])


def _lock(connection: "Connection[Any]", schema: str) -> None:
    name = f"consilience {schema}"
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (name,))
