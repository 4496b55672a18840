"""What the server remembers of its background work: jobs, and the originals of uploaded documents.

One SQLite file in the folder of uploads, changed all or nothing, so that a server that was stopped
or killed knows what it was about. A job is kept as one JSON object, whose shape is the affair of
`jobs`; an original is the digest of a file that lies beside the database. Knows no queue.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from consilience.errors import DamagedError
from consilience.store.connection import Database

FILE = "uploads.sqlite3"

_TABLES = """
CREATE TABLE IF NOT EXISTS jobs (
  place INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  body TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS originals (
  name TEXT PRIMARY KEY,
  digest TEXT NOT NULL,
  stamp TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""

Body = Mapping[str, Any]


class Ledger:
    """Jobs and originals on disk.

    Args:
        folder: Where; it must exist.

    Raises:
        DamagedError: The file is damaged. Without it only the queue and pictures of pages are lost.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._database = Database(self.path, create=True)
        try:
            with self._told():
                self._database.execute("PRAGMA journal_mode = WAL")
                with self._database.transaction() as connection:
                    connection.execute(_TABLES)
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def jobs(self) -> list[dict[str, Any]]:
        """Every job, in the order they came."""
        with self._told():
            rows = self._database.execute("SELECT body FROM jobs ORDER BY place")
            return [json.loads(body) for (body,) in rows]

    def write(self, *jobs: Body) -> None:
        """Keep jobs, each in the place of what was known of it."""
        rows = [(job["id"], json.dumps(job)) for job in jobs]
        sql = "INSERT INTO jobs (id, body) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET body = ?2"
        with self._database.transaction() as connection:
            connection.executemany(sql, rows)

    def forget(self, *ids: str) -> None:
        """Keep jobs no longer."""
        with self._database.transaction() as connection:
            connection.executemany("DELETE FROM jobs WHERE id = ?", [(id_,) for id_ in ids])

    def originals(self) -> dict[str, tuple[str, str]]:
        """The digest and the stamp of every original, by the name of its document."""
        rows = self._database.execute("SELECT name, digest, stamp FROM originals")
        return {name: (digest, stamp) for name, digest, stamp in rows}

    def original(self, name: str) -> tuple[str, str] | None:
        """The digest and the stamp of one."""
        sql = "SELECT digest, stamp FROM originals WHERE name = ?"
        rows = self._database.execute(sql, (name,))
        return (rows[0][0], rows[0][1]) if rows else None

    def keep_original(self, name: str, digest: str, stamp: str) -> None:
        """Remember the original of a document."""
        sql = "INSERT OR REPLACE INTO originals VALUES (?, ?, ?)"
        with self._database.transaction() as connection:
            connection.execute(sql, (name, digest, stamp))

    def forget_originals(self, *names: str) -> None:
        """Remember originals no longer."""
        with self._database.transaction() as connection:
            connection.executemany("DELETE FROM originals WHERE name = ?", [(n,) for n in names])

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What is damaged is told with what to do about it."""
        try:
            yield
        except (DamagedError, ValueError, apsw.Error) as error:
            raise DamagedError(
                f"{self.path} is damaged: {error}",
                hint=f"rm {self.path}: the queue is lost, the knowledge base is not",
            ) from error
