"""From a path to the database of a store: found, made, or refused with the reason.

A store is a folder that holds `store.sqlite3`. The folder `derived/` beside it is made last, so an
empty database next to it was emptied by something else, while one without it is a creation that did
not finish and may be done again. Knows nothing of what a store is used for.
"""

import secrets
import time
from pathlib import Path

import apsw

from consilience.errors import (
    BusyError,
    ConsilienceError,
    MissingError,
    UsageError,
    VersionError,
)
from consilience.store.connection import (
    BUSY_SECONDS,
    Database,
    damaged,
    read_meta,
    write_meta,
)
from consilience.store.schema import APPLICATION_ID, CREATE, SCHEMA_VERSION
from consilience.version import __version__

DATABASE = "store.sqlite3"
DERIVED = "derived"

_PAUSE = 0.01  # seconds


def open_database(root: Path, *, create: bool) -> Database:
    """The database of the store in the folder `root`.

    Args:
        root: The folder; made with its parents when it is missing and `create` is set.
        create: Whether a missing store is made.

    Raises:
        MissingError: There is no store and `create` is not set.
        UsageError: `root` is a file, or a folder that holds other things.
        DamagedError: The database is not readable or not a store's.
        VersionError: A newer version of this package made the store.
        ConsilienceError: The folder cannot be made or written.
    """
    path = root / DATABASE
    if not path.exists():
        _require_free(root, create=create)
        _make_folder(root)
    database = Database(path, create=create)
    try:
        _require_store(database, create=create)
        _make_folder(root / DERIVED)
    except BaseException:
        database.close()
        raise
    return database


def _require_free(root: Path, *, create: bool) -> None:
    """Refuse a place where no store is and none should be made."""
    if root.exists() and not root.is_dir():
        raise UsageError(f"{root} is a file; a store is a folder", hint="consilience add PATH")
    others = sorted(p.name for p in root.iterdir() if p.name[0] != ".") if root.exists() else []
    if (root / DATABASE).exists():
        return  # Another process has made it just now.
    if DERIVED in others:
        raise damaged(root / DATABASE, "the file is gone, its indexes are still there")
    if others:
        raise UsageError(
            f"{root} is a folder but not a store: it holds {', '.join(others[:3])}"
            + (" and more" if len(others) > 3 else ""),
            hint="consilience add PATH --store NEW_FOLDER",
        )
    if not create:
        raise _missing(root)


def _missing(root: Path) -> MissingError:
    return MissingError(f"there is no store at {root}", hint=f"consilience add PATH --store {root}")


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConsilienceError(
            f"the folder {path} cannot be made: {error.strerror}", hint="Choose another --store."
        ) from error


def _require_store(database: Database, *, create: bool) -> None:
    """Make the tables of a new store, or see that they are there and not from the future."""
    # Asked first: another process may be making the tables, and this folder after them, just now.
    finished = (database.path.parent / DERIVED).exists()
    if not database.execute("SELECT name FROM sqlite_schema LIMIT 1"):
        if finished:
            raise damaged(database.path, "it is empty, its indexes are still there")
        if not create:
            raise _missing(database.path.parent)
        _initialise(database)
    if database.execute("PRAGMA application_id")[0][0] != APPLICATION_ID:
        raise damaged(database.path, "it is an SQLite database, but not a store's")
    with database.translated():
        _require_version(database.path, database.meta("schema"), database.meta("created_by"))


def _require_version(path: Path, schema: object, created_by: object) -> None:
    if not isinstance(schema, int):
        raise damaged(path, f"its schema version is {schema!r}")
    if schema > SCHEMA_VERSION:
        raise VersionError(
            f"the store at {path.parent} has schema version {schema} (made by consilience "
            f"{created_by}); this version reads up to {SCHEMA_VERSION}",
            hint="pip install --upgrade consilience",
        )


def _initialise(database: Database) -> None:
    """Make the tables in one transaction; of two processes at once, the second finds them made."""
    _log_ahead(database)
    with database.transaction() as connection:
        if not connection.execute("SELECT name FROM sqlite_schema LIMIT 1").fetchall():
            connection.execute(CREATE)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            _write_birth(connection)


def _log_ahead(database: Database) -> None:
    """Have changes written to a log first.

    SQLite does not wait for others that do so at the same moment, as it does for writers.
    """
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
        except BusyError:
            if time.monotonic() >= until:
                raise
            time.sleep(_PAUSE)
        else:
            return


def _write_birth(connection: apsw.Connection) -> None:
    assert read_meta(connection, "schema") is None
    write_meta(connection, "schema", SCHEMA_VERSION)
    write_meta(connection, "created_by", __version__)
    write_meta(connection, "identity", secrets.token_hex(16))
    write_meta(connection, "sequence", 0)
    write_meta(connection, "fingerprint", "")
    write_meta(connection, "dimension", 0)
