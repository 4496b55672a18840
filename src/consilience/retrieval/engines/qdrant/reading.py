"""Questions to a copy in Qdrant, through the filter of one ledger.

BM25 is an inner product of sparse vectors: a question's has how often each token was asked for, a
passage's the part of the formula that depends on the passage, and the server multiplies with the
idf.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from consilience.documents import Passage
from consilience.retrieval.engines.base import Conditions, Vector, passage_of, sliced, unpacked
from consilience.retrieval.engines.qdrant.wire import Wire
from consilience.retrieval.engines.runs import Ledger
from consilience.retrieval.ranking import Ranking

if TYPE_CHECKING:
    from qdrant_client.models import Filter


class QdrantEntries:
    """`Entries` of one collection, through the filter of one ledger.

    Args:
        wire: The way to it.
        collection: The shelf.
        ledger: What counts.
    """

    def __init__(self, wire: Wire, collection: str, ledger: Ledger) -> None:
        self._wire = wire
        self._collection = collection
        self._ledger = ledger

    def by_words(self, tokens: Mapping[str, int], depth: int, conditions: Conditions) -> Ranking:
        """The best passages by BM25 as an inner product."""
        from qdrant_client import models

        asked = sparse({token: float(times) for token, times in tokens.items()})
        vector = models.SparseVector(indices=list(asked), values=list(asked.values()))
        return self._found(vector, "tokens", depth, conditions)

    def nearest(self, vector: Vector, depth: int, conditions: Conditions) -> Ranking:
        """The nearest passages by inner product."""
        return self._found(vector.tolist(), "dense", depth, conditions)

    def passages(self, numbers: Sequence[int]) -> Iterator[tuple[int, Passage]]:
        """Out of the payloads."""
        for kept in self._kept("number", numbers):
            yield kept["number"], passage_of(kept)

    def numbers(self, ids: Sequence[str]) -> Iterator[tuple[str, int]]:
        """The number of each passage by its id."""
        for kept in self._kept("id", ids):
            yield str(kept["id"]), int(kept["number"])

    def vectors(self, numbers: Sequence[int]) -> Iterator[tuple[int, NDArray[np.float16]]]:
        """Vectors as they were before the server had them."""
        for kept in self._kept("number", numbers):
            yield kept["number"], unpacked(kept["vector"])

    def _found(self, query: Any, using: str, depth: int, conditions: Conditions) -> Ranking:
        within = [any_of(name, terms) for name, terms in conditions]
        found = self._wire.ask(
            lambda client: client.query_points(
                self._collection,
                query=query,
                using=using,
                query_filter=self._seen(within),
                limit=depth,
                with_payload=["number"],
            )
        )
        return [(int((p.payload or {})["number"]), float(p.score)) for p in found.points]

    def _kept(self, field: str, values: Sequence[Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for some in sliced(values):
            which = self._seen([any_of(field, some)])
            found += self._scrolled(which, len(some))
        return found

    def _scrolled(self, which: "Filter", most: int) -> list[dict[str, Any]]:
        records, _ = self._wire.ask(
            lambda client: client.scroll(self._collection, scroll_filter=which, limit=most)
        )
        return [record.payload or {} for record in records]

    def _seen(self, within: Sequence[Any]) -> "Filter":
        from qdrant_client import models

        gone = models.FieldCondition(
            key="died", range=models.Range(lte=self._ledger.published.sequence)
        )
        return models.Filter(must=[any_of("run", self._ledger.runs), *within], must_not=[gone])


def sparse(weights: Mapping[str, float]) -> dict[int, float]:
    """Weights by 32 bits of each token's digest; tokens that share them share a weight."""
    found: dict[int, float] = defaultdict(float)
    for token, weight in weights.items():
        digest = hashlib.blake2b(token.encode(), digest_size=4).digest()
        found[int.from_bytes(digest)] += weight
    return dict(sorted(found.items()))


def any_of(field: str, values: Sequence[Any]) -> Any:
    """A condition: one of the values is in a field."""
    from qdrant_client import models

    return models.FieldCondition(key=field, match=models.MatchAny(any=list(values)))
