"""Questions to a copy in Milvus, through the filter of one ledger.

Terms of labels and filters, ids and tokens lie in the server as digests: they are only ever
compared, digests have one length, and nothing in them ends a string of a filter's language.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from consilience.documents import Passage
from consilience.retrieval.engines.base import (
    Conditions,
    Published,
    Vector,
    conditions_of,
    require_vector,
)
from consilience.retrieval.engines.milvus.wire import ONCE, Wire
from consilience.retrieval.engines.runs import Ledger
from consilience.retrieval.ranking import Ranking, Scope
from consilience.store import VectorRows

MOST_BYTES = 65535
"""Bytes of one text in a field."""

_WORD = 8  # characters of the digest of a token: 32 bits, as the server keeps no more of one
_SLICE = 1000  # values in one filter
_DEEPEST = 16384  # passages in one answer


class MilvusView:
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
        """The best passages by the server's BM25."""
        if not tokens or not self.state.passages:
            return []
        found = self._found(question(tokens), "tokens", depth, scope)
        # BM25 is never below 0, but Milvus Lite gives it with the other sign.
        return _ranking((number, abs(score)) for number, score in found)

    def rank_dense(self, vector: Vector, *, depth: int, scope: Scope) -> Ranking:
        """The nearest passages by inner product."""
        if not self.state.passages:
            return []
        require_vector(vector, self.state.dimension)
        return _ranking(self._found(vector.tolist(), "vector", depth, scope))

    def passages(self, numbers: Sequence[int]) -> dict[int, Passage]:
        """Passages by number; see `View.passages`."""
        wanted = [int(number) for number in numbers]
        rows = self._rows("number", wanted, ["number", "kept"])
        found = {int(row["number"]): passage_of(row["kept"]) for row in rows}
        return {number: found[number] for number in wanted if number in found}

    def numbers(self, ids: Sequence[str]) -> dict[str, int]:
        """The number of each passage by its id; see `View.numbers`."""
        named = {digest(id): id for id in ids}  # noqa: A001 the field's name in every contract
        rows = self._rows("name", list(named), ["number", "name"])
        return {named[row["name"]]: int(row["number"]) for row in rows}

    def vectors(self, numbers: Sequence[int]) -> VectorRows:
        """Vectors by number; see `View.vectors`."""
        wanted = [int(number) for number in numbers] if self.state.dimension else []
        rows = self._rows("number", wanted, ["number", "vector"])
        found = {int(row["number"]): row["vector"] for row in rows}
        vectors = np.array([found[number] for number in sorted(found)], np.float16)
        return VectorRows(
            np.array(sorted(found), np.int64), vectors.reshape(len(found), self.state.dimension)
        )

    def _found(self, asked: Any, field: str, depth: int, scope: Scope) -> Ranking:
        seen = self._seen(conditions_of(scope))
        found = self._wire.searched(
            self._collection,
            lambda client: client.search(
                self._collection,
                data=[asked],
                anns_field=field,
                filter=seen,
                limit=min(depth, _DEEPEST),
                output_fields=["number"],
                consistency_level="Strong",
                **ONCE,
            ),
        )
        return [(int(hit["entity"]["number"]), float(hit["distance"])) for hit in found[0]]

    def _rows(self, field: str, values: Sequence[Any], wanted: list[str]) -> list[dict[str, Any]]:
        if not self._ledger.runs:
            return []
        seen = self._seen([])
        found: list[dict[str, Any]] = []
        for some in sliced(values):
            which = f"{seen} and {any_of(field, some)}"
            found += rows(self._wire, self._collection, which, wanted)
        return found

    def _seen(self, conditions: Conditions) -> str:
        counted = any_of("run", self._ledger.runs)
        alive = f"died > {self._ledger.published.sequence}"
        within = [f"array_contains_any({name}, {digests(terms)})" for name, terms in conditions]
        return " and ".join([counted, alive, *within])


def _ranking(found: Iterable[tuple[int, float]]) -> Ranking:
    return sorted(found, key=lambda one: (-one[1], one[0]))


def rows(wire: Wire, collection: str, which: str, wanted: list[str]) -> list[dict[str, Any]]:
    """Fields of all that a filter lets through."""
    found = wire.searched(
        collection,
        lambda client: client.query(
            collection, filter=which, output_fields=wanted, consistency_level="Strong", **ONCE
        ),
    )
    return [dict(row) for row in found]


def passage_of(kept: str) -> Passage:
    """A passage out of its field."""
    known = json.loads(kept)
    return Passage(**{**known, "access": tuple(known["access"])})


def any_of(field: str, values: Sequence[Any]) -> str:
    """A condition: one of the values is in a field. Strings must be digests or names of runs."""
    return f"{field} in {json.dumps(list(values))}"


def digests(terms: Iterable[str]) -> str:
    """Terms as a filter lists them."""
    return json.dumps([digest(term) for term in terms])


def digest(term: str) -> str:
    """What stands for a term that is only compared: 128 bits, so that nobody makes two alike."""
    return hashlib.blake2b(term.encode(errors="replace"), digest_size=16).hexdigest()


def question(tokens: Mapping[str, int]) -> str:
    """The text of a question's tokens, as many as a text takes."""
    each = (token for token, times in tokens.items() for _ in range(times))
    return text_of(islice(each, MOST_BYTES // (_WORD + 1)))


def text_of(tokens: Iterable[str]) -> str:
    """Tokens as a text that any analyzer cuts into one word for each."""
    return " ".join(
        hashlib.blake2b(token.encode(errors="replace"), digest_size=_WORD // 2).hexdigest()
        for token in tokens
    )


def sliced(values: Sequence[Any]) -> Iterator[list[Any]]:
    """As many values at a time as one filter takes."""
    return (list(values[start : start + _SLICE]) for start in range(0, len(values), _SLICE))
