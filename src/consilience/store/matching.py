"""What a filter means in this store: the numbers of the passages that it lets through.

Whether a filter asks for a key of metadata that no document has is only looked into when it lets
nothing through, so that the usual case costs one statement.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from consilience.store.connection import Database, Value
from consilience.store.where import METADATA, Where, unknown_field

Condition = tuple[str, list[Value]]
"""A condition of SQL on a document `d`, and what its marks stand for."""


def matching(database: Database, where: Where) -> NDArray[np.int64]:
    """The numbers of the passages whose documents a filter lets through, ascending.

    Raises:
        UsageError: No document has a key of metadata that is asked for.
    """
    conditions = _conditions(where)
    sql = (
        "SELECT p.number FROM passages p JOIN documents d ON d.number = p.document "
        f"WHERE {' AND '.join(['1', *(sql for sql, _ in conditions)])} ORDER BY p.number"
    )
    found = database.execute(sql, [value for _, values in conditions for value in values])
    if not found:
        _require_keys(database, where)
    return np.fromiter((number for (number,) in found), dtype=np.int64, count=len(found))


def _conditions(where: Where) -> list[Condition]:
    columns = (("d.contributor", where.contributors), ("d.language", where.languages))
    keys = where.by_key().items()
    return [
        *([_named(where.sources)] if where.sources else []),
        *(_one_of(column, values) for column, values in columns if values),
        *(_with_metadata(key, values) for key, values in keys),
    ]


def _one_of(column: str, values: Sequence[str]) -> Condition:
    marks = ", ".join("?" * len(values))
    return f"{column} IN ({marks})", list(values)


def _named(sources: Sequence[str]) -> Condition:
    """Documents of these names, or below these folders."""
    below = [name for name in sources if name.endswith("/")]
    names, values = _one_of("d.source", [name for name in sources if not name.endswith("/")])
    inside = ["substr(d.source, 1, length(?)) = ?"] * len(below)
    return f"({' OR '.join([names, *inside])})", [*values, *(name for name in below for _ in "ab")]


def _with_metadata(key: str, values: Sequence[str]) -> Condition:
    value, bindings = _one_of("value", values)
    return (
        f"EXISTS (SELECT 1 FROM json_each(d.metadata) WHERE key = ? AND {value})",
        [key, *bindings],
    )


def _require_keys(database: Database, where: Where) -> None:
    asked = where.by_key().keys()
    if not asked:
        return
    sql = "SELECT DISTINCT j.key FROM documents d, json_each(d.metadata) j"
    known = {key for (key,) in database.execute(sql)}
    for key in sorted(asked - known):
        raise unknown_field(f"{METADATA}{key}", known)
