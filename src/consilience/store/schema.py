"""The tables of a store, and the version of their shape.

An *origin* is what is added, replaced and removed as a whole: one file, or one document given as an
object. It has one or more documents, a document has passages, and a passage carries its vector, so
that no transaction can part them. Deleting an origin deletes all below it.

What the columns promise beyond their types:

- `passages.number` is never used again (AUTOINCREMENT) and a row under a number never changes;
  indexes that took a number in need not look at it again.
- `passages.sequence` is the commit that brought the row. A removed row leaves a tombstone with the
  commits of its birth and death; both together are the history that indexes replay.
- `passages.content` is a digest of exactly what the encoder was given. Equal content means equal
  vector, which is how an edited, renamed or relabelled file keeps the vectors it can keep.
- `origins.stamp` is a digest of everything that the rows of an origin were made from; empty means
  that they are no longer all there.
- `staged` holds vectors that are computed but belong to no committed passage yet, so that
  interrupted embedding goes on where it stopped. It can be emptied at any time.

Nothing here opens a database or knows what the columns are used for above.
"""

SCHEMA_VERSION = 1
"""Raised with every change of shape; a store with a higher one is refused."""

APPLICATION_ID = 0x436F6E73
"""Marks the SQLite file as a store (`Cons`), for us and for `file(1)`."""

CREATE = """
CREATE TABLE meta (
  key TEXT PRIMARY KEY,
  value ANY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE origins (
  number INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  is_file INTEGER NOT NULL,
  stamp TEXT NOT NULL
) STRICT;

CREATE TABLE documents (
  number INTEGER PRIMARY KEY,
  origin INTEGER NOT NULL REFERENCES origins (number) ON DELETE CASCADE,
  source TEXT NOT NULL UNIQUE,
  id TEXT NOT NULL,
  title TEXT NOT NULL,
  language TEXT NOT NULL,
  contributor TEXT NOT NULL,
  access TEXT NOT NULL,
  metadata TEXT NOT NULL,
  pages TEXT NOT NULL,
  characters INTEGER NOT NULL,
  text TEXT NOT NULL
) STRICT;
CREATE INDEX documents_by_origin ON documents (origin);

CREATE TABLE passages (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  document INTEGER NOT NULL REFERENCES documents (number) ON DELETE CASCADE,
  sequence INTEGER NOT NULL,
  id TEXT NOT NULL UNIQUE,
  content BLOB NOT NULL,
  page INTEGER,
  start INTEGER NOT NULL,
  "end" INTEGER NOT NULL,
  contributor TEXT NOT NULL,
  access TEXT NOT NULL,
  vector BLOB NOT NULL,
  text TEXT NOT NULL
) STRICT;
CREATE INDEX passages_by_document ON passages (document);
CREATE INDEX passages_by_sequence ON passages (sequence);
CREATE INDEX passages_by_content ON passages (content);

CREATE TABLE tombstones (
  number INTEGER PRIMARY KEY,
  born INTEGER NOT NULL,
  died INTEGER NOT NULL
) STRICT;
CREATE INDEX tombstones_by_death ON tombstones (died);

CREATE TABLE staged (
  fingerprint TEXT NOT NULL,
  content BLOB NOT NULL,
  vector BLOB NOT NULL,
  PRIMARY KEY (fingerprint, content)
) STRICT, WITHOUT ROWID;
"""
