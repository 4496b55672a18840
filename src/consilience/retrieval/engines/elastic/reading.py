"""Questions to a copy in a search server, through the filter of one ledger.

BM25 is the server's own over our tokens, vectors are found by its graph. What a citation needs is
kept beside as it was, vectors in half precision included, and never analysed.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consilience.documents import Passage
from consilience.retrieval.engines.base import (
    Conditions,
    MovedError,
    Vector,
    passage_of,
    sliced,
    unpacked,
)
from consilience.retrieval.engines.elastic.clients import Json
from consilience.retrieval.engines.elastic.dialects import MOST, Dialect
from consilience.retrieval.engines.elastic.wire import Wire
from consilience.retrieval.engines.runs import Ledger
from consilience.retrieval.ranking import Ranking

_STORED = ["number", "kept"]


class ElasticEntries:
    """`Entries` of one index, through the filter of one ledger.

    Args:
        wire: The way to the server.
        index: The shelf.
        ledger: What counts.
        dialect: What the server understands.
    """

    def __init__(self, wire: Wire, index: str, ledger: Ledger, dialect: Dialect) -> None:
        self._wire = wire
        self._index = index
        self._ledger = ledger
        self._dialect = dialect

    def by_words(self, tokens: Mapping[str, int], depth: int, conditions: Conditions) -> Ranking:
        """The best passages by the server's BM25."""
        query = seen(self._ledger, _filters(conditions))
        query["bool"]["should"] = [
            {"term": {"tokens": {"value": token, "boost": float(times)}}}
            for token, times in tokens.items()
        ]
        query["bool"]["minimum_should_match"] = 1
        return self._search({"query": query}, depth)

    def nearest(self, vector: Vector, depth: int, conditions: Conditions) -> Ranking:
        """The nearest passages by the server's graph."""
        filters = seen(self._ledger, _filters(conditions))
        asked = self._dialect.nearest(vector.tolist(), min(depth, MOST), filters)
        return [(number, product_of(score)) for number, score in self._search(asked, depth)]

    def passages(self, numbers: Sequence[int]) -> Iterator[tuple[int, Passage]]:
        """Out of what is kept beside what is searched."""
        for source in self._sources("number", numbers):
            yield source["number"], passage_of(source["kept"])

    def numbers(self, ids: Sequence[str]) -> Iterator[tuple[str, int]]:
        """The number of each passage by its id."""
        for source in self._sources("id", ids):
            yield str(source["kept"]["id"]), int(source["number"])

    def vectors(self, numbers: Sequence[int]) -> Iterator[tuple[int, NDArray[np.float16]]]:
        """Vectors as they were before the server had them."""
        for source in self._sources("number", numbers):
            yield source["number"], unpacked(source["kept"]["vector"])

    def _sources(self, field: str, values: Sequence[Any]) -> list[Json]:
        found: list[Json] = []
        for some in sliced(values):
            query = {"query": seen(self._ledger, [{"terms": {field: some}}]), "size": len(some)}
            found += [hit["_source"] for hit in self._hits({**query, "_source": _STORED})]
        return found

    def _search(self, body: Json, depth: int) -> Ranking:
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


def seen(ledger: Ledger, filters: Sequence[Json]) -> Json:
    """What the ledger's readers see and the filters let through."""
    gone = {"range": {"died": {"lte": ledger.published.sequence}}}
    counted = {"terms": {"run": list(ledger.runs)}}
    return {"bool": {"filter": [counted, *filters], "must_not": [gone]}}


def _filters(conditions: Conditions) -> list[Json]:
    return [{"terms": {name: terms}} for name, terms in conditions]


def product_of(score: float) -> float:
    """The inner product out of a score, which both servers keep above 0.

    They give `1 + s` for `s >= 0` and `1 / (1 - s)` below.
    """
    return score - 1 if score >= 1 else 1 - 1 / score
