"""What Elasticsearch and OpenSearch say differently: how vectors are mapped and asked for."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

from consilience.retrieval.engines.elastic.clients import Json

MOST = 10_000
"""Hits that the servers give for one question."""

OLDEST = {"elasticsearch": (9, 0), "opensearch": (2, 13)}
"""The first versions that understand the client and compare vectors of any length in a filter."""


class Dialect(Protocol):
    """How one of them speaks of vectors."""

    settings: ClassVar[Json]

    def mapping(self, dimension: int) -> Json:
        """The mapping of a field of vectors."""
        ...

    def nearest(self, vector: Sequence[float], depth: int, filters: Json) -> Json:
        """A search for the nearest vectors."""
        ...


class _Elasticsearch:
    settings: ClassVar[Json] = {}

    def mapping(self, dimension: int) -> Json:
        return {
            "type": "dense_vector",
            "dims": dimension,
            "index": True,
            "similarity": "max_inner_product",
            "index_options": {"type": "hnsw"},
        }

    def nearest(self, vector: Sequence[float], depth: int, filters: Json) -> Json:
        return {
            "knn": {
                "field": "vector",
                "query_vector": list(vector),
                "k": depth,
                "num_candidates": min(MOST, max(200, 2 * depth)),
                "filter": filters,
            }
        }


class _OpenSearch:
    settings: ClassVar[Json] = {"knn": True}

    def mapping(self, dimension: int) -> Json:
        method = {"name": "hnsw", "engine": "faiss", "space_type": "innerproduct"}
        return {"type": "knn_vector", "dimension": dimension, "method": method}

    def nearest(self, vector: Sequence[float], depth: int, filters: Json) -> Json:
        asked = {"vector": list(vector), "k": depth, "filter": filters}
        return {"query": {"knn": {"vector": asked}}}


DIALECTS: Mapping[str, Dialect] = {
    "elasticsearch": _Elasticsearch(),
    "opensearch": _OpenSearch(),
}
