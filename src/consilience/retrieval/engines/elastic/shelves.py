"""A copy in a search server: an index per shelf, and one document that is the ledger.

The ledger is replaced only while its sequence number is the one that was read. k1, b and the
title's weight are fixed when an index is made, so a copy is made anew when they change.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from consilience.errors import RemoteError, UsageError
from consilience.retrieval.engines.address import Address
from consilience.retrieval.engines.base import Delta, Entry, Terms, packed, sliced
from consilience.retrieval.engines.elastic.clients import Json
from consilience.retrieval.engines.elastic.dialects import MOST, OLDEST, Dialect
from consilience.retrieval.engines.elastic.reading import ElasticEntries, seen
from consilience.retrieval.engines.elastic.wire import Wire
from consilience.retrieval.engines.runs import Kept, Ledger, Run
from consilience.retrieval.engines.viewing import CommitView
from consilience.retrieval.tuning import Tuning
from consilience.text import TOKENS

_KEPT: Json = {"type": "object", "enabled": False}
_FIELDS: Json = {
    "number": {"type": "long"},
    "id": {"type": "keyword"},
    "run": {"type": "keyword"},
    "turn": {"type": "long"},
    "died": {"type": "long"},
    "readers": {"type": "keyword"},
    "facts": {"type": "keyword"},
    "tokens": {
        "type": "text",
        "analyzer": "whitespace",
        "similarity": "ours",
        "index_options": "freqs",
    },
    "kept": _KEPT,
}


def recipe(tuning: Tuning) -> str:
    """What an index is made with; titles count in whole repetitions."""
    return f"tokens {TOKENS}, k1 {tuning.k1:g}, b {tuning.b:g}, title {_repeated(tuning)}"


def _repeated(tuning: Tuning) -> int:
    return round(tuning.title)


class ElasticShelves:
    """`Shelves` in Elasticsearch or OpenSearch.

    Args:
        wire: The way to the server.
        address: Whose copy it is.
        dialect: What it understands.
    """

    def __init__(self, wire: "Wire", address: Address, dialect: Dialect) -> None:
        self._wire = wire
        self._address = address
        self._dialect = dialect

    @property
    def _ledgers(self) -> str:
        return f"{self._address.copy}-ledger"

    def _index(self, shelf: str) -> str:
        return f"{self._address.copy}-{shelf}"

    def ledger(self) -> Kept | None:
        """The ledger with its sequence number; reading it is never behind."""
        found = self._wire.ask("GET", f"/{self._ledgers}/_doc/ledger", missing={})
        if not found.get("found"):
            return None
        version = {name: found[f"_{name}"] for name in ("seq_no", "primary_term")}
        return Kept(_unpacked(found["_source"].get("ledger")), version)

    def replace(self, ledger: Ledger, kept: Kept | None) -> bool:
        """Write the ledger if it is still the one that was read."""
        version = kept.version if kept else None
        only = (
            {f"if_{name}": value for name, value in version.items()}
            if version
            else {"op_type": "create"}
        )
        if kept is None:
            self._make(self._ledgers, {}, {"ledger": _KEPT})
        body = {"ledger": json.dumps(ledger.to_dict())}
        path = f"/{self._ledgers}/_doc/ledger"
        return "_seq_no" in self._wire.once("PUT", path, body, only, conflict={})

    def make(self, shelf: str, delta: Delta) -> None:
        """An index with the similarity of the tuning."""
        self._require_version()
        similarity = {"type": "BM25", "k1": delta.tuning.k1, "b": delta.tuning.b}
        settings = {
            **self._dialect.settings,
            "number_of_shards": 1,
            "similarity": {"ours": similarity},
        }
        fields = dict(_FIELDS)
        if delta.dimension:
            fields["vector"] = self._dialect.mapping(delta.dimension)
        self._make(self._index(shelf), settings, fields)

    def _make(self, index: str, settings: Json, fields: Json) -> None:
        mappings = {"dynamic": "strict", "properties": fields}
        body = {"settings": {"index": settings}, "mappings": mappings}
        self._wire.ask("PUT", f"/{index}", body, existing={})

    def has(self, shelf: str) -> bool:
        """Whether the index is there."""
        return bool(self._wire.ask("GET", f"/{self._index(shelf)}/_settings", missing={}))

    def add(self, shelf: str, run: Run, entries: Sequence[Entry], tuning: Tuning) -> None:
        """Write entries under names that a second attempt writes again."""
        lines: list[Json] = []
        for entry in entries:
            lines.append({"index": {"_id": f"{run.name}-{entry.number}"}})
            lines.append(_document(entry, run, tuning))
        self._wire.bulk(self._index(shelf), lines)

    def bury(self, ledger: Ledger, died: Mapping[int, int]) -> None:
        """Mark the entries of the runs that count."""
        index = self._index(ledger.shelf)
        for numbers in sliced(list(died)):
            query = {"query": seen(ledger, [{"terms": {"number": numbers}}]), "size": MOST}
            query |= {"_source": ["number"]}
            found = self._wire.ask("POST", f"/{index}/_search", query, missing={})
            lines: list[Json] = []
            for hit in found["hits"]["hits"] if found else ():
                lines.append({"update": {"_id": hit["_id"], "retry_on_conflict": 3}})
                lines.append({"doc": {"died": died[hit["_source"]["number"]]}})
            self._wire.bulk(index, lines)

    def settle(self, shelf: str) -> None:
        """Make what was written findable."""
        self._wire.ask("POST", f"/{self._index(shelf)}/_refresh", slow=True, missing={})

    def sweep(self, ledger: Ledger) -> None:
        """Delete what died, and what runs left that do not count and never will."""
        dead = {"range": {"died": {"lte": ledger.published.sequence}}}
        uncounted = {"terms": {"run": list(ledger.runs)}}
        past = {"range": {"turn": {"lte": ledger.turn}}}
        left = {"bool": {"must_not": [uncounted], "filter": [past]}}
        body = {"query": {"bool": {"should": [dead, left], "minimum_should_match": 1}}}
        path = f"/{self._index(ledger.shelf)}/_delete_by_query"
        self._wire.ask("POST", path, body, {"conflicts": "proceed"}, slow=True)

    def others(self, shelf: str) -> list[str]:
        """The indexes of the copy beside one and the ledger's."""
        found = self._wire.ask("GET", f"/{self._index('*')}/_settings", missing={})
        kept = (self._index(shelf), self._ledgers)
        return [name.removeprefix(self._index("")) for name in found if name not in kept]

    def drop(self, shelf: str) -> None:
        """Delete the index."""
        self._wire.ask("DELETE", f"/{self._index(shelf)}", missing={})

    def view(self, ledger: Ledger) -> CommitView:
        """What the ledger's readers see."""
        entries = ElasticEntries(self._wire, self._index(ledger.shelf), ledger, self._dialect)
        return CommitView(entries, ledger.published)

    def close(self) -> None:
        """Close the client's connections."""
        self._wire.close()

    def _require_version(self) -> None:
        """Refuse a server of the other name, or one that is too old."""
        told = self._wire.ask("GET", "/")["version"]
        name = told.get("distribution", "elasticsearch")
        found = tuple(int(part) for part in told["number"].split(".")[:2])
        if name != self._address.engine:
            raise UsageError(
                f"{self._address.shown} is {name}, not {self._address.engine}",
                hint=f"begin the URL with {name}+",
            )
        if found < OLDEST[name]:
            oldest = ".".join(map(str, OLDEST[name]))
            raise RemoteError(
                f"{self._address.shown} is {name} {told['number']}, at least {oldest} is needed",
                hint="upgrade the server",
            )


def _document(entry: Entry, run: Run, tuning: Tuning) -> Json:
    passage = entry.record.passage
    terms = Terms.of(passage)
    tokens = [*terms.title.elements()] * _repeated(tuning) + [*terms.text.elements()]
    return {
        "number": entry.number,
        "id": passage.id,
        "run": run.name,
        "turn": run.turn,
        "readers": entry.readers,
        "facts": entry.facts,
        "tokens": " ".join(tokens),
        "vector": entry.vector.astype(np.float32).tolist(),
        "kept": {**asdict(passage), "vector": packed(entry.vector)},
    }


def _unpacked(ledger: Any) -> Any:
    try:
        return json.loads(ledger)
    except (TypeError, ValueError):
        return ledger
