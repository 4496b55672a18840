"""Questions to a copy in a search server, through the filter of one ledger.

BM25 is the server's own over our tokens, vectors are found by its graph. What a citation needs is
kept beside as it was, vectors in half precision included, and never analysed.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from consilience.documents import Passage
from consilience.retrieval.engines.base import (
    Conditions,
    MovedError,
    Published,
    Vector,
    conditions_of,
    require_vector,
)
from consilience.retrieval.engines.elastic.clients import Json
from consilience.retrieval.engines.elastic.dialects import MOST, Dialect
from consilience.retrieval.engines.elastic.wire import Wire
from consilience.retrieval.engines.runs import Ledger
from consilience.retrieval.ranking import Ranking, Scope
from consilience.store import VectorRows

_STORED = ["number", "kept"]
_SLICE = 1000  # values in one filter


class ElasticView:
    """A `View`: one index, through the filter of one ledger.

    Args:
        wire: The way to the server.
        index: The shelf.
        ledger: What counts.
        dialect: What the server understands.
    """

    def __init__(self, wire: "Wire", index: str, ledger: Ledger, dialect: Dialect) -> None:
        self._wire = wire
        self._index = index
        self._ledger = ledger
        self._dialect = dialect

    @property
    def state(self) -> Published:
        """Which commit it is."""
        return self._ledger.published

    def rank_lexical(self, tokens: Mapping[str, int], *, depth: int, scope: Scope) -> Ranking:
        """The best passages by the server's BM25."""
        if not tokens or not self.state.passages:
            return []
        query = seen(self._ledger, _filters(conditions_of(scope)))
        query["bool"]["should"] = [
            {"term": {"tokens": {"value": token, "boost": float(times)}}}
            for token, times in tokens.items()
        ]
        query["bool"]["minimum_should_match"] = 1
        hits = self._search({"query": query}, depth)
        return _ranking((number, score) for number, score in hits)

    def rank_dense(self, vector: Vector, *, depth: int, scope: Scope) -> Ranking:
        """The nearest passages by the server's graph."""
        if not self.state.passages:
            return []
        require_vector(vector, self.state.dimension)
        filters = seen(self._ledger, _filters(conditions_of(scope)))
        asked = self._dialect.nearest(vector.tolist(), min(depth, MOST), filters)
        return _ranking((number, product_of(score)) for number, score in self._search(asked, depth))

    def passages(self, numbers: Sequence[int]) -> dict[int, Passage]:
        """Passages by number; see `View.passages`."""
        wanted = [int(number) for number in numbers]
        sources = self._sources("number", wanted)
        found = {source["number"]: _passage(source["kept"]) for source in sources}
        return {number: found[number] for number in wanted if number in found}

    def numbers(self, ids: Sequence[str]) -> dict[str, int]:
        """The number of each passage by its id; see `View.numbers`."""
        found = self._sources("id", list(ids))
        return {str(source["kept"]["id"]): int(source["number"]) for source in found}

    def vectors(self, numbers: Sequence[int]) -> VectorRows:
        """Vectors by number; see `View.vectors`."""
        sources = self._sources("number", [int(number) for number in numbers])
        found = {source["number"]: base64.b64decode(source["kept"]["vector"]) for source in sources}
        rows = np.frombuffer(b"".join(found[n] for n in sorted(found)), "<f2")
        return VectorRows(
            np.array(sorted(found), np.int64), rows.reshape(len(found), self.state.dimension)
        )

    def _sources(self, field: str, values: Sequence[Any]) -> list[Json]:
        found: list[Json] = []
        for some in sliced(values):
            query = {"query": seen(self._ledger, [{"terms": {field: some}}]), "size": len(some)}
            found += [hit["_source"] for hit in self._hits({**query, "_source": _STORED})]
        return found

    def _search(self, body: Json, depth: int) -> list[tuple[int, float]]:
        extra = {
            "size": min(depth, MOST),
            "_source": ["number"],
            "sort": [{"_score": "desc"}, {"number": "asc"}],
            "track_total_hits": False,
        }
        hits = self._hits({**body, **extra}, {"search_type": "dfs_query_then_fetch"})
        return [(int(hit["_source"]["number"]), float(hit["_score"])) for hit in hits]

    def _hits(self, body: Json, params: Json | None = None) -> list[Json]:
        found = self._wire.ask("POST", f"/{self._index}/_search", body, params, missing={})
        if not found:
            raise MovedError(f"the index {self._index} is gone", hint="Ask again.")
        hits: list[Json] = found["hits"]["hits"]
        return hits


def _passage(kept: Json) -> Passage:
    known = {name: value for name, value in kept.items() if name != "vector"}
    return Passage(**{**known, "access": tuple(known["access"])})


def seen(ledger: Ledger, filters: Sequence[Json]) -> Json:
    """What the ledger's readers see and the filters let through."""
    gone = {"range": {"died": {"lte": ledger.published.sequence}}}
    counted = {"terms": {"run": list(ledger.runs)}}
    return {"bool": {"filter": [counted, *filters], "must_not": [gone]}}


def _filters(conditions: Conditions) -> list[Json]:
    return [{"terms": {name: terms}} for name, terms in conditions]


def sliced(values: Sequence[Any]) -> Iterable[list[Any]]:
    """As many values at a time as one filter takes."""
    return (list(values[start : start + _SLICE]) for start in range(0, len(values), _SLICE))


def _ranking(found: Iterable[tuple[int, float]]) -> Ranking:
    return sorted(found, key=lambda ranked: (-ranked[1], ranked[0]))


def product_of(score: float) -> float:
    """The inner product out of a score, which both servers keep above 0.

    They give `1 + s` for `s >= 0` and `1 / (1 - s)` below.
    """
    return score - 1 if score >= 1 else 1 - 1 / score
