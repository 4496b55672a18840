"""Connections to the database file: how they are set up, and how SQLite's errors are told.

A `Database` hands every thread its own connection, opens a transaction that takes the write lock at
its beginning (so that waiting happens before work, never after it), and opens snapshots that stay
still while others commit. It knows no table but `meta`, whose key-value pairs it reads.

A database must not be used across `fork`: open it in the child.
"""

import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import apsw

from consilience.errors import BusyError, ConsilienceError, DamagedError, UsageError
from consilience.store.base import no_text

BUSY_SECONDS = 10.0
"""How long a writer waits for another writer."""

Value: TypeAlias = "str | int | float | bytes | apsw.CArrayBinding | None"
Row = tuple[Any, ...]


class Database:
    """One SQLite file, in write-ahead logging, each commit on disk before it returns.

    Args:
        path: The file; it must exist unless `create`.
        create: Make the file when it is missing.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        self._create = create
        self._local = threading.local()
        self._connections: weakref.WeakSet[apsw.Connection] = weakref.WeakSet()
        self._closed = False

    @property
    def connection(self) -> apsw.Connection:
        """The connection of this thread."""
        self._require_open()
        connection: apsw.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self.connect()
        return connection

    def connect(self) -> apsw.Connection:
        """A new connection, closed with the database if not before."""
        self._require_open()
        try:
            connection = _connect(self.path, create=self._create)
        except apsw.Error as error:
            raise _translate(error, self.path, errno=0) from error
        self._connections.add(connection)
        return connection

    def _require_open(self) -> None:
        if self._closed:
            raise UsageError(f"the store at {self.path.parent} is closed", hint="Open it again.")

    def execute(self, sql: str, bindings: Sequence[Value] = ()) -> list[Row]:
        """All rows of one statement."""
        with self.translated():
            return list(self.connection.execute(sql, bindings))

    def meta(self, key: str) -> Any:
        """The value under a key of `meta`, or None."""
        with self.translated():
            return read_meta(self.connection, key)

    @contextmanager
    def transaction(self) -> Iterator[apsw.Connection]:
        """All or nothing: commits on leaving, rolls back on any exception, Ctrl-C among them.

        Raises:
            BusyError: Another process kept the write lock for `BUSY_SECONDS`.
            DamagedError: The file is damaged.
            ConsilienceError: The disk is full or failed; nothing has changed.
        """
        with self.translated():
            connection = self.connection
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def snapshot(self) -> apsw.Connection:
        """A connection of its own on which the state of this moment stays until it is closed."""
        connection = self.connect()
        with self.translated():
            connection.execute("BEGIN")
            connection.execute("SELECT value FROM meta LIMIT 1").fetchall()
        return connection

    def close(self) -> None:
        """Close every connection; the last one of all processes folds the log into the file."""
        self._closed = True
        for connection in list(self._connections):
            connection.close()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Tell SQLite's errors in this package's words."""
        try:
            yield
        except UnicodeEncodeError as error:
            raise no_text(error) from error
        except apsw.Error as error:
            raise _translate(error, self.path, self.connection.system_errno) from error


def read_meta(connection: apsw.Connection, key: str) -> Any:
    """The value under a key of `meta` as `connection` sees it, or None."""
    return connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).get


def write_meta(connection: apsw.Connection, key: str, value: Value) -> None:
    """Set a key of `meta` in the transaction that `connection` is in."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def _connect(path: Path, *, create: bool) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
    connection = apsw.Connection(str(path), flags=flags)
    set_patience(connection)
    _distrust(connection)
    connection.execute("PRAGMA foreign_keys = ON; PRAGMA synchronous = FULL")
    # What is removed is to be gone from the disk too, not only unlinked in the file.
    connection.execute("PRAGMA secure_delete = ON")
    return connection


def set_patience(connection: apsw.Connection) -> None:
    """Make a connection wait for other writers, for `BUSY_SECONDS`."""
    connection.set_busy_timeout(int(BUSY_SECONDS * 1000))


def _distrust(connection: apsw.Connection) -> None:
    """Stores travel between people: nothing written in one may run code or hide behind a name."""
    for option in (apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, apsw.SQLITE_DBCONFIG_ENABLE_VIEW):
        connection.config(option, 0)
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    connection.execute("PRAGMA cell_size_check = ON")


def _translate(error: apsw.Error, path: Path, errno: int) -> ConsilienceError:
    folder = path.parent
    match error:
        case apsw.BusyError() | apsw.LockedError():
            return BusyError(
                f"another process kept writing to the store at {folder} for {BUSY_SECONDS:g} s",
                hint="Let it finish, then run the same command again.",
            )
        case apsw.CorruptError() | apsw.NotADBError() | apsw.FormatError():
            return damaged(path, str(error))
        case apsw.SQLError() if "no such" in str(error):
            return damaged(path, str(error))
        case apsw.FullError() | apsw.IOError():
            return _no_write(path, errno, error)
        case apsw.CantOpenError() | apsw.ReadOnlyError() | apsw.PermissionsError():
            return ConsilienceError(
                f"the store at {folder} cannot be opened for writing: {_reason(errno, error)}",
                hint=f"Check the permissions of {folder} and of the files in it.",
            )
    return ConsilienceError(
        f"the store at {folder} failed: {error}", hint=f"consilience doctor --store {folder}"
    )


def damaged(path: Path, reason: str) -> DamagedError:
    """The error for a database that is not what a store's must be."""
    return DamagedError(
        f"{path} is damaged: {reason}", hint=f"consilience doctor --store {path.parent}"
    )


def _no_write(path: Path, errno: int, error: apsw.Error) -> ConsilienceError:
    return ConsilienceError(
        f"the store at {path.parent} could not be written: {_reason(errno, error)}",
        hint="Make room, then run the same command again: what was committed before is kept.",
    )


def _reason(errno: int, error: apsw.Error) -> str:
    return os.strerror(errno) if errno else str(error)
