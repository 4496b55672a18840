"""A copy in Qdrant: a collection per shelf, and one point that is the ledger.

The ledger is replaced only while its version is the one that was read. k1, b, the title's weight
and the average length are part of every sparse vector, so a copy is made anew when the tuning
changes; the average is that of the time when it was made.
"""

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import numpy as np

from consilience.errors import RemoteError
from consilience.retrieval.engines.address import Address
from consilience.retrieval.engines.base import (
    Delta,
    Entry,
    MovedError,
    Terms,
    packed,
    sliced,
)
from consilience.retrieval.engines.qdrant.reading import QdrantEntries, any_of, sparse
from consilience.retrieval.engines.qdrant.wire import Wire
from consilience.retrieval.engines.runs import Kept, Ledger, Run
from consilience.retrieval.engines.viewing import CommitView
from consilience.retrieval.tuning import Tuning
from consilience.text import TOKENS

if TYPE_CHECKING:
    from qdrant_client import QdrantClient
    from qdrant_client.models import PointStruct

OLDEST = (1, 17)
"""The first version that writes a point only if it is there, or not there, as asked."""

_LEDGER = 1  # the only point of the ledger's collection
_AVERAGE = 0  # the point of a shelf that has the average lengths
_INDEXED = dict.fromkeys(("number", "died", "turn"), "integer") | dict.fromkeys(
    ("id", "run", "readers", "facts"), "keyword"
)


def recipe(tuning: Tuning) -> str:
    """What a collection is made with."""
    numbers = f"k1 {tuning.k1:g}, b {tuning.b:g}, title {tuning.title:g}"
    return f"tokens {TOKENS}, {numbers}"


class QdrantShelves:
    """`Shelves` in Qdrant.

    Args:
        wire: The way to it.
        address: Whose copy it is.
    """

    def __init__(self, wire: Wire, address: Address) -> None:
        self._wire = wire
        self._address = address

    @property
    def _ledgers(self) -> str:
        return f"{self._address.copy}-ledger"

    def _collection(self, shelf: str) -> str:
        return f"{self._address.copy}-{shelf}"

    def ledger(self) -> Kept | None:
        """The ledger with its version."""
        try:
            found = self._wire.ask(lambda client: client.retrieve(self._ledgers, [_LEDGER]))
        except MovedError:
            return None
        if not found:
            return None
        payload = found[0].payload or {}
        return Kept(payload.get("ledger"), payload.get("version"))

    def replace(self, ledger: Ledger, kept: Kept | None) -> bool:
        """Write the ledger if it is still the one that was read; whose it then is tells."""
        from qdrant_client import models

        self._make(self._ledgers, {})
        version = token_hex(8)
        payload = {"ledger": ledger.to_dict(), "version": version}
        point = models.PointStruct(id=_LEDGER, vector={}, payload=payload)
        only: dict[str, Any] = {"update_mode": models.UpdateMode.INSERT_ONLY}
        if kept is not None:
            only = {"update_filter": models.Filter(must=[_equals("version", kept.version)])}
        self._wire.once(lambda client: client.upsert(self._ledgers, [point], **only))
        now = self.ledger()
        return now is not None and now.version == version

    def make(self, shelf: str, delta: Delta) -> None:
        """A collection, with the average lengths of what it will hold."""
        from qdrant_client import models

        self._require_version()
        vectors = {}
        if delta.dimension:
            params = models.VectorParams(size=delta.dimension, distance=models.Distance.DOT)
            vectors["dense"] = params
        self._make(self._collection(shelf), vectors)
        title, text = delta.average()
        payload = {"title": title, "text": text}
        point = models.PointStruct(id=_AVERAGE, vector={}, payload=payload)
        self._wire.ask(lambda client: client.upsert(self._collection(shelf), [point]))

    def _make(self, collection: str, vectors: Mapping[str, Any]) -> None:
        from qdrant_client import models

        def make(client: "QdrantClient") -> None:
            if client.collection_exists(collection):
                return
            sparse = models.SparseVectorParams(modifier=models.Modifier.IDF)
            client.create_collection(
                collection, vectors_config=dict(vectors), sparse_vectors_config={"tokens": sparse}
            )
            if not self._address.engine_is_local:
                for field, kind in _INDEXED.items():
                    client.create_payload_index(collection, field, models.PayloadSchemaType(kind))

        self._wire.ask(make)

    def _require_version(self) -> None:
        """Refuse a server that would replace a ledger without comparing."""
        if self._address.engine_is_local:
            return
        found = self._wire.ask(lambda client: client.info()).version
        if tuple(int(part) for part in found.split(".")[:2]) < OLDEST:
            oldest = ".".join(map(str, OLDEST))
            raise RemoteError(
                f"{self._address.shown} is Qdrant {found}, at least {oldest} is needed",
                hint="upgrade the server",
            )

    def has(self, shelf: str) -> bool:
        """Whether the collection is there."""
        return self._wire.ask(lambda client: client.collection_exists(self._collection(shelf)))

    def add(self, shelf: str, run: Run, entries: Sequence[Entry], tuning: Tuning) -> None:
        """Write entries under names that a second attempt writes again."""
        collection = self._collection(shelf)
        found = self._wire.ask(lambda client: client.retrieve(collection, [_AVERAGE]))
        average = found[0].payload if found else None
        if average is None:
            raise MovedError(f"someone else has published to {self._address.shown}")
        weighed = Weighing(tuning, average["text"] + tuning.title * average["title"])
        points = [_point(entry, run, weighed) for entry in entries]
        self._wire.ask(lambda client: client.upsert(collection, points))

    def bury(self, ledger: Ledger, died: Mapping[int, int]) -> None:
        """Mark the entries of the runs that count."""
        together: dict[int, list[int]] = defaultdict(list)
        for number, commit in died.items():
            together[commit].append(number)
        for commit, numbers in together.items():
            for some in sliced(numbers):
                self._mark(ledger, some, commit)

    def _mark(self, ledger: Ledger, numbers: list[int], commit: int) -> None:
        from qdrant_client import models

        collection = self._collection(ledger.shelf)
        which = models.Filter(must=[any_of("run", ledger.runs), any_of("number", numbers)])
        self._wire.ask(
            lambda client: client.set_payload(collection, payload={"died": commit}, points=which)
        )

    def settle(self, shelf: str) -> None:
        """Nothing: every call waits until what it wrote is found."""

    def sweep(self, ledger: Ledger) -> None:
        """Delete what died, and what runs left that do not count and never will."""
        from qdrant_client import models

        collection = self._collection(ledger.shelf)
        dead = models.FieldCondition(key="died", range=models.Range(lte=ledger.published.sequence))
        past = models.FieldCondition(key="turn", range=models.Range(lte=ledger.turn))
        left = models.Filter(must_not=[any_of("run", ledger.runs)], must=[past])
        which = models.FilterSelector(filter=models.Filter(should=[dead, left]))
        self._wire.ask(lambda client: client.delete(collection, which))

    def others(self, shelf: str) -> list[str]:
        """The collections of the copy beside one and the ledger's."""
        found = self._wire.ask(lambda client: client.get_collections()).collections
        kept = (self._collection(shelf), self._ledgers)
        ours = self._collection("")
        return [
            one.name.removeprefix(ours)
            for one in found
            if one.name.startswith(ours) and one.name not in kept
        ]

    def drop(self, shelf: str) -> None:
        """Delete the collection."""
        self._wire.ask(lambda client: client.delete_collection(self._collection(shelf)))

    def view(self, ledger: Ledger) -> CommitView:
        """What the ledger's readers see."""
        entries = QdrantEntries(self._wire, self._collection(ledger.shelf), ledger)
        return CommitView(entries, ledger.published)

    def close(self) -> None:
        """Let go of the server or the folder."""
        self._wire.close()


class Weighing:
    """The part of BM25 that depends on a passage: `f (k1 + 1) / (f + k1 (1 - b + b l / L))`.

    f is how often a token stands in the passage and l the passage's length, words of the title
    counted `title` times; L is the average length when the collection was made. Source: Robertson
    and Zaragoza, 2009, "The Probabilistic Relevance Framework: BM25 and Beyond".

    Args:
        tuning: k1, b and the weight of titles.
        average: L.
    """

    def __init__(self, tuning: Tuning, average: float) -> None:
        self._tuning = tuning
        self._average = max(average, 1e-9)

    def __call__(self, terms: Terms) -> dict[str, float]:
        """The weight of every token of a passage."""
        k1, b, title = self._tuning.k1, self._tuning.b, self._tuning.title
        length = terms.text.total() + title * terms.title.total()
        norm = k1 * (1 - b + b * length / self._average)
        counts = {
            token: terms.text[token] + title * terms.title[token]
            for token in terms.title.keys() | terms.text.keys()
        }
        return {token: f * (k1 + 1) / (f + norm) for token, f in counts.items() if f > 0}


def _point(entry: Entry, run: Run, weighed: Weighing) -> "PointStruct":
    from qdrant_client import models

    passage = entry.record.passage
    weights = sparse(weighed(Terms.of(passage)))
    tokens = models.SparseVector(indices=list(weights), values=list(weights.values()))
    return models.PointStruct(
        id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{run.name}-{entry.number}")),
        vector={"dense": entry.vector.astype(np.float32).tolist(), "tokens": tokens},
        payload={
            **asdict(passage),
            "number": entry.number,
            "run": run.name,
            "turn": run.turn,
            "readers": entry.readers,
            "facts": entry.facts,
            "vector": packed(entry.vector),
        },
    )


def _equals(field: str, value: Any) -> Any:
    from qdrant_client import models

    return models.FieldCondition(key=field, match=models.MatchValue(value=value))
