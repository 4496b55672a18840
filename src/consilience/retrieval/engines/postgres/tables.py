"""The tables of a copy in PostgreSQL, and how statements are put together.

A copy is a schema that carries a mark as its comment, so that a schema of somebody else is never
taken for one. `postings` has a row for each token of each passage, with all that a question's score
needs, so that its index answers alone. Names are quoted by the driver, values are never part of a
statement's text.
"""

from typing import TYPE_CHECKING, Any, LiteralString

if TYPE_CHECKING:
    from psycopg.sql import Composable, Composed

MARK = "A copy published by consilience"

TABLES: LiteralString = """
CREATE SCHEMA {schema};
COMMENT ON SCHEMA {schema} IS {mark};
CREATE TABLE {schema}.state (
  single boolean PRIMARY KEY DEFAULT true CHECK (single),
  published jsonb NOT NULL,
  title_length bigint NOT NULL,
  text_length bigint NOT NULL
);
CREATE TABLE {schema}.passages (
  number bigint NOT NULL,
  id text NOT NULL,
  source text NOT NULL,
  title text NOT NULL,
  text text NOT NULL,
  page integer,
  start bigint NOT NULL,
  "end" bigint NOT NULL,
  contributor text NOT NULL,
  access text[] NOT NULL,
  language text NOT NULL,
  metadata jsonb NOT NULL,
  readers text[] NOT NULL,
  facts text[] NOT NULL,
  title_length integer NOT NULL,
  text_length integer NOT NULL,
  vector halfvec NOT NULL
);
CREATE TABLE {schema}.terms (token text COLLATE "C" NOT NULL, passages bigint NOT NULL);
CREATE TABLE {schema}.postings (
  number bigint NOT NULL,
  in_title integer NOT NULL,
  in_text integer NOT NULL,
  title_length integer NOT NULL,
  text_length integer NOT NULL,
  token text COLLATE "C" NOT NULL
);
"""

INDEXES: LiteralString = """
ALTER TABLE {schema}.passages ADD PRIMARY KEY (number);
CREATE UNIQUE INDEX ON {schema}.passages (id);
CREATE INDEX ON {schema}.passages USING gin (readers);
CREATE INDEX ON {schema}.passages USING gin (facts);
ALTER TABLE {schema}.terms ADD PRIMARY KEY (token);
CREATE UNIQUE INDEX ON {schema}.postings (token, number)
  INCLUDE (in_title, in_text, title_length, text_length);
CREATE INDEX ON {schema}.postings (number);
"""
"""Made when the tables are full, which costs a fraction of keeping them while they fill."""

GRAPH: LiteralString = """
CREATE INDEX IF NOT EXISTS passages_by_vector ON {schema}.passages
USING hnsw ((vector::halfvec({dimension})) halfvec_ip_ops)
"""

FRESH: LiteralString = """
CREATE TEMP TABLE fresh (
  token text COLLATE "C", number bigint, in_title integer, in_text integer,
  title_length integer, text_length integer
) ON COMMIT DROP
"""
"""The postings of what a change brings, from which tokens are counted and sorted."""

PASSAGE: LiteralString = (
    'p.number, p.id, p.text, p.title, p.source, p.page, p.start, p."end", p.contributor, p.access'
)


def composed(text: LiteralString, schema: str, **parts: Any) -> "Composed":
    """A statement about a copy.

    Args:
        text: With `{schema}`, and the names of further parts in braces.
        schema: The name of the copy.
        **parts: Whole numbers, and pieces of SQL that were composed.
    """
    from psycopg import sql

    known = {k: sql.Literal(v) if isinstance(v, int) else v for k, v in parts.items()}
    mark, passage = sql.Literal(MARK), sql.SQL(PASSAGE)
    return sql.SQL(text).format(schema=sql.Identifier(schema), mark=mark, passage=passage, **known)


def name(text: str) -> "Composable":
    """A name within a statement."""
    from psycopg import sql

    return sql.Identifier(text)
