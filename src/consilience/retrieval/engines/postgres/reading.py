"""Questions to a copy in PostgreSQL, as SQL.

BM25 is added up from the postings with whatever k1 and b the copy's tuning has, so its ranking is
that of an index here. Vectors are compared in half precision, through a graph where there is one,
and the nearest once more in full precision.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import log1p
from typing import TYPE_CHECKING, Any, LiteralString

import numpy as np
from numpy.typing import NDArray

from consilience.documents import Passage
from consilience.retrieval.engines.base import Conditions, Published, Vector
from consilience.retrieval.engines.postgres.tables import composed
from consilience.retrieval.ranking import Ranking
from consilience.retrieval.tuning import Tuning

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.sql import Composed

_KNOWN: LiteralString = """
SELECT t.token, t.passages, s.title_length, s.text_length
FROM {schema}.terms t CROSS JOIN {schema}.state s WHERE t.token = ANY(%s)
"""

_LEXICAL: LiteralString = """
SELECT o.number, sum(
  a.weight * (o.in_text + %(title)s * o.in_title) / (
    o.in_text + %(title)s * o.in_title
    + %(base)s + %(slope)s * (o.text_length + %(title)s * o.title_length)
  )
) AS score
FROM unnest(%(tokens)s::text[], %(weights)s::float8[]) AS a (token, weight)
JOIN {schema}.postings o USING (token)
WHERE o.in_text + %(title)s * o.in_title > 0 AND {within}
GROUP BY o.number ORDER BY score DESC, o.number LIMIT %(depth)s
"""
"""BM25 with the idf that is never negative: `sum over t of q idf f (k1 + 1) / (f + k1 (1 - b + b l
/ L))`, `idf = ln(1 + (N - n + 0.5) / (n + 0.5))`, where q and f are how often token t stands in
question and passage, l is the passage's length and L the average one, N counts passages and n those
with t; words of the title count `title` times in f, l and L. Here `base + slope l` is what k1
multiplies, and `weight` all that does not depend on the passage: worked out outside, since the
planner would do it for every row. Source: Robertson and Zaragoza, 2009, "The Probabilistic
Relevance Framework: BM25 and Beyond"."""

_DENSE: LiteralString = """
SELECT number, -(vector::vector({dimension}) <#> %(vector)s::vector({dimension})) AS score
FROM (
  SELECT p.number, p.vector FROM {schema}.passages p WHERE {scope}
  ORDER BY p.vector::halfvec({dimension}) <#> %(vector)s::halfvec({dimension}) LIMIT %(depth)s
) AS nearest
ORDER BY score DESC, number
"""


class PostgresEntries:
    """`Entries` in the snapshot of one transaction.

    Args:
        connection: Within that transaction.
        schema: The copy.
        state: Of the copy, as that snapshot has it.
    """

    def __init__(self, connection: "Connection[Any]", schema: str, state: Published) -> None:
        self._connection = connection
        self._schema = schema
        self._state = state

    def by_words(self, tokens: Mapping[str, int], depth: int, conditions: Conditions) -> Ranking:
        """The best passages by BM25, exactly."""
        values = self._weighed(tokens) | {"depth": depth}
        within = _numbers_in(conditions, values, self._schema)
        return self._ranking(self._sql(_LEXICAL, within=within), values)

    def _weighed(self, tokens: Mapping[str, int]) -> dict[str, Any]:
        """The tokens that there are with their weights, and the numbers of the formula."""
        found = self._connection.execute(self._sql(_KNOWN), [list(tokens)]).fetchall()
        tuning, whole = Tuning.parse(self._state.tuning), self._state.passages
        k1, b, title = tuning.k1, tuning.b, tuning.title
        length = max((found[0][3] + title * found[0][2]) / whole if found else 0.0, 1e-9)
        idf = {token: log1p((whole - n + 0.5) / (n + 0.5)) for token, n, _, _ in found}
        return {
            "tokens": list(idf),
            "weights": [tokens[token] * idf[token] * (k1 + 1) for token in idf],
            "title": float(title),
            "base": k1 * (1 - b),
            "slope": k1 * b / length,
        }

    def nearest(self, vector: Vector, depth: int, conditions: Conditions) -> Ranking:
        """The nearest passages; exactly where there is no graph or the filter leaves few."""
        values: dict[str, Any] = {"vector": _literal(vector), "depth": depth}
        self._connection.execute(
            "SELECT set_config('hnsw.iterative_scan', 'strict_order', true), "
            "set_config('hnsw.ef_search', %s, true)",
            (str(min(1000, max(100, 2 * depth))),),
        )
        within = _terms_of(conditions, values)
        return self._ranking(
            self._sql(_DENSE, dimension=self._state.dimension, scope=within), values
        )

    def passages(self, numbers: Sequence[int]) -> Iterator[tuple[int, Passage]]:
        """Out of their columns."""
        sql = self._sql("SELECT {passage} FROM {schema}.passages p WHERE p.number = ANY(%s)")
        for row in self._connection.execute(sql, [numbers]):
            yield row[0], _passage(row[1:])

    def numbers(self, ids: Sequence[str]) -> Iterator[tuple[str, int]]:
        """The number of each passage by its id."""
        sql = self._sql("SELECT id, number FROM {schema}.passages WHERE id = ANY(%s)")
        for id_, number in self._connection.execute(sql, [ids]):
            yield str(id_), int(number)

    def vectors(self, numbers: Sequence[int]) -> Iterator[tuple[int, NDArray[np.float16]]]:
        """Vectors out of their text form."""
        sql = self._sql("SELECT number, vector::text FROM {schema}.passages WHERE number = ANY(%s)")
        for number, text in self._connection.execute(sql, [numbers]):
            yield number, np.fromstring(text[1:-1], np.float16, sep=",")

    def _ranking(self, sql: "Composed", values: Mapping[str, Any]) -> Ranking:
        return [(int(n), float(score)) for n, score in self._connection.execute(sql, values)]

    def _sql(self, text: LiteralString, **parts: "int | Composed") -> "Composed":
        return composed(text, self._schema, **parts)


def _numbers_in(conditions: Conditions, values: dict[str, Any], schema: str) -> "Composed":
    """A condition on a posting `o`; true where there are none, which spares the join."""
    from psycopg import sql

    if not conditions:
        return sql.SQL("{}").format(sql.SQL("true"))
    return composed(
        "o.number IN (SELECT p.number FROM {schema}.passages p WHERE {scope})",
        schema,
        scope=_terms_of(conditions, values),
    )


def _terms_of(conditions: Conditions, values: dict[str, Any]) -> "Composed":
    """Conditions on a passage `p`; what they compare with goes into `values`."""
    from psycopg import sql

    parts: list[Any] = [sql.SQL("true")]
    for place, (name, terms) in enumerate(conditions):
        values[f"terms{place}"] = terms
        mark = sql.Placeholder(f"terms{place}")
        parts.append(sql.SQL("p.{} && {}::text[]").format(sql.Identifier(name), mark))
    together: Composed = sql.SQL(" AND ").join(parts)
    return together


def _passage(row: Sequence[Any]) -> Passage:
    id_, text, title, source, page, start, end, contributor, access = row
    return Passage(id_, text, title, source, page, start, end, contributor, tuple(access))


def _literal(vector: Vector) -> str:
    return f"[{','.join(map(str, vector.tolist()))}]"
