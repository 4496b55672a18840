"""Questions to a copy in Qdrant, through the filter of one ledger.

BM25 is an inner product of sparse vectors: a question's has how often each token was asked for, a
passage's the part of the formula that depends on the passage, and the server multiplies with the
idf.
"""

import base64
import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from consilience.documents import Passage
from consilience.retrieval.engines.base import Published, Vector, conditions_of, require_vector
from consilience.retrieval.engines.qdrant.wire import Wire
from consilience.retrieval.engines.runs import Ledger
from consilience.retrieval.ranking import Ranking, Scope
from consilience.store import VectorRows

if TYPE_CHECKING:
    from qdrant_client.models import Filter

_SLICE = 1000  # values in one filter


class QdrantView:
    """A `View`: one collection, through the filter of one ledger.

    Args:
        wire: The way to it.
        collection: The shelf.
        ledger: What counts.
    """

    def __init__(self, wire: Wire, collection: str, ledger: Ledger) -> None:
        self._wire = wire
        self._collection = collection
        self._ledger = ledger

    @property
    def state(self) -> Published:
        """Which commit it is."""
        return self._ledger.published

    def rank_lexical(self, tokens: Mapping[str, int], *, depth: int, scope: Scope) -> Ranking:
        """The best passages by BM25 as an inner product."""
        from qdrant_client import models

        if not tokens or not self.state.passages:
            return []
        asked = sparse({token: float(times) for token, times in tokens.items()})
        vector = models.SparseVector(indices=list(asked), values=list(asked.values()))
        return self._ranking(vector, "tokens", depth, scope)

    def rank_dense(self, vector: Vector, *, depth: int, scope: Scope) -> Ranking:
        """The nearest passages by inner product."""
        if not self.state.passages:
            return []
        require_vector(vector, self.state.dimension)
        return self._ranking(vector.tolist(), "dense", depth, scope)

    def passages(self, numbers: Sequence[int]) -> dict[int, Passage]:
        """Passages by number; see `View.passages`."""
        wanted = [int(number) for number in numbers]
        found = {kept["number"]: _passage(kept) for kept in self._kept("number", wanted)}
        return {number: found[number] for number in wanted if number in found}

    def numbers(self, ids: Sequence[str]) -> dict[str, int]:
        """The number of each passage by its id; see `View.numbers`."""
        return {str(kept["id"]): int(kept["number"]) for kept in self._kept("id", list(ids))}

    def vectors(self, numbers: Sequence[int]) -> VectorRows:
        """Vectors by number; see `View.vectors`."""
        kept = self._kept("number", [int(number) for number in numbers])
        found = {one["number"]: base64.b64decode(one["vector"]) for one in kept}
        rows = np.frombuffer(b"".join(found[n] for n in sorted(found)), "<f2")
        return VectorRows(
            np.array(sorted(found), np.int64), rows.reshape(len(found), self.state.dimension)
        )

    def _ranking(self, query: Any, using: str, depth: int, scope: Scope) -> Ranking:
        within = [any_of(name, terms) for name, terms in conditions_of(scope)]
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
        ranked = [(int((p.payload or {})["number"]), float(p.score)) for p in found.points]
        return sorted(ranked, key=lambda one: (-one[1], one[0]))

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


_APART = frozenset({"number", "run", "turn", "died", "readers", "facts", "vector"})


def _passage(kept: Mapping[str, Any]) -> Passage:
    known = {name: value for name, value in kept.items() if name not in _APART}
    return Passage(**{**known, "access": tuple(known["access"])})


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


def sliced(values: Sequence[Any]) -> Iterator[list[Any]]:
    """As many values at a time as one filter takes."""
    return (list(values[start : start + _SLICE]) for start in range(0, len(values), _SLICE))
