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
from numpy.typing import NDArray

from consilience.documents import Passage
from consilience.retrieval.engines.base import Conditions, Vector, passage_of, sliced
from consilience.retrieval.engines.milvus.wire import ONCE, Wire
from consilience.retrieval.engines.runs import Ledger
from consilience.retrieval.ranking import Ranking

MOST_BYTES = 65535
"""Bytes of one text in a field."""

_WORD = 8  # characters of the digest of a token: 32 bits, as the server keeps no more of one
_DEEPEST = 16384  # passages in one answer


class MilvusEntries:
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
        """The best passages by the server's BM25."""
        found = self._found(question(tokens), "tokens", depth, conditions)
        # BM25 is never below 0, but Milvus Lite gives it with the other sign.
        return [(number, abs(score)) for number, score in found]

    def nearest(self, vector: Vector, depth: int, conditions: Conditions) -> Ranking:
        """The nearest passages by inner product."""
        return self._found(vector.tolist(), "vector", depth, conditions)

    def passages(self, numbers: Sequence[int]) -> Iterator[tuple[int, Passage]]:
        """Out of the texts that are kept of them."""
        for row in self._rows("number", numbers, ["number", "kept"]):
            yield int(row["number"]), passage_of(json.loads(row["kept"]))

    def numbers(self, ids: Sequence[str]) -> Iterator[tuple[str, int]]:
        """The number of each passage by its id, whose digest the server has."""
        named = {digest(id): id for id in ids}  # noqa: A001 the field's name in every contract
        for row in self._rows("name", list(named), ["number", "name"]):
            yield named[row["name"]], int(row["number"])

    def vectors(self, numbers: Sequence[int]) -> Iterator[tuple[int, NDArray[np.float16]]]:
        """Vectors in the precision that they had before the server had them."""
        wanted = numbers if self._ledger.published.dimension else []
        for row in self._rows("number", wanted, ["number", "vector"]):
            yield int(row["number"]), np.array(row["vector"], np.float16)

    def _found(self, asked: Any, field: str, depth: int, conditions: Conditions) -> Ranking:
        seen = self._seen(conditions)
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


def rows(wire: Wire, collection: str, which: str, wanted: list[str]) -> list[dict[str, Any]]:
    """Fields of all that a filter lets through."""
    found = wire.searched(
        collection,
        lambda client: client.query(
            collection, filter=which, output_fields=wanted, consistency_level="Strong", **ONCE
        ),
    )
    return [dict(row) for row in found]


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
