"""A copy in Milvus: a collection per shelf, and an empty one for the ledger.

The server scores with its own BM25 on our tokens. k1 and b belong to its index and the title's
weight to the text that it counts, so a copy is made anew when they change. Nothing can be changed
in an entry without writing all of it, so those that go are read and written again with the commit
in which they went.
"""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from consilience.errors import RemoteError, UsageError
from consilience.retrieval.engines.address import Address
from consilience.retrieval.engines.base import Delta, Entry, Terms
from consilience.retrieval.engines.milvus.ledgers import Ledgers
from consilience.retrieval.engines.milvus.reading import (
    MOST_BYTES,
    MilvusEntries,
    any_of,
    digest,
    rows,
    text_of,
)
from consilience.retrieval.engines.milvus.wire import ONCE, Wire
from consilience.retrieval.engines.runs import Kept, Ledger, Run
from consilience.retrieval.engines.viewing import CommitView
from consilience.retrieval.tuning import Tuning
from consilience.text import TOKENS

if TYPE_CHECKING:
    from pymilvus import CollectionSchema, MilvusClient

OLDEST = (2, 5)
"""The first version with BM25."""

_ALIVE = 1 << 62  # the commit in which what is there went
_TERMS = 4096  # readers, or facts, of one entry
_HIGHEST_K1 = 3.0
_WRITTEN = 256  # entries that are written at a time
_LOOKED_UP = ("number", "name", "run")
_WORDLESS = "none"  # the only word of an entry without tokens; it is no digest, so is never found


def recipe(tuning: Tuning) -> str:
    """What a collection is made with; titles count in whole repetitions."""
    return f"tokens {TOKENS}, k1 {tuning.k1:g}, b {tuning.b:g}, title {round(tuning.title)}"


class MilvusShelves:
    """`Shelves` in Milvus.

    Args:
        wire: The way to it.
        ledgers: Those of the copy.
        address: Whose copy it is.
    """

    def __init__(self, wire: Wire, ledgers: Ledgers, address: Address) -> None:
        self._wire = wire
        self._ledgers = ledgers
        self._address = address

    def _collection(self, shelf: str) -> str:
        return f"{self._address.copy}_{shelf}"

    def ledger(self) -> Kept | None:
        """The ledger in force."""
        return self._ledgers.newest()

    def replace(self, ledger: Ledger, kept: Kept | None) -> bool:
        """Make the ledger that follows the one that was read."""
        return self._ledgers.put(ledger, kept)

    def make(self, shelf: str, delta: Delta) -> None:
        """A collection with the tuning's BM25; what an attempt before this one left goes first."""
        self._require_version()
        self._require_k1(delta.tuning)
        name = self._collection(shelf)

        def make(client: "MilvusClient") -> None:
            if client.has_collection(name, **ONCE):
                client.drop_collection(name, **ONCE)
            client.create_collection(name, schema=_schema(client, delta.dimension), **ONCE)
            _index(client, name, delta)

        self._wire.ask(make)
        self._wire.load(name)

    def _require_version(self) -> None:
        found = self._wire.ask(lambda client: client.get_server_version(**ONCE))
        version = re.search(r"([0-9]+)\.([0-9]+)", found)
        if version and (int(version[1]), int(version[2])) < OLDEST:
            raise RemoteError(
                f"{self._address.shown} is Milvus {found[:40]}, at least "
                f"{'.'.join(map(str, OLDEST))} is needed",
                hint="upgrade the server",
            )

    def _require_k1(self, tuning: Tuning) -> None:
        if tuning.k1 > _HIGHEST_K1:
            raise UsageError(
                f"Milvus takes a k1 of at most {_HIGHEST_K1:g}, the store has {tuning.k1:g}",
                hint="consilience tune finds others; other engines take this one",
            )

    def has(self, shelf: str) -> bool:
        """Whether the collection is there."""
        name = self._collection(shelf)
        return bool(self._wire.ask(lambda client: client.has_collection(name, **ONCE)))

    def add(self, shelf: str, run: Run, entries: Sequence[Entry], tuning: Tuning) -> None:
        """Write entries under names that a second attempt writes again."""
        self._write(self._collection(shelf), [_row(entry, run, tuning) for entry in entries])

    def bury(self, ledger: Ledger, died: Mapping[int, int]) -> None:
        """Write the entries of the runs that count again, with the commit in which each went."""
        collection = self._collection(ledger.shelf)
        dense = ["vector"] if ledger.published.dimension else []
        numbers = list(died)
        for start in range(0, len(numbers), _WRITTEN):
            some = numbers[start : start + _WRITTEN]
            which = f"{any_of('run', ledger.runs)} and {any_of('number', some)}"
            found = rows(self._wire, collection, which, [*_FIELDS, *dense])
            self._write(collection, [{**row, "died": died[int(row["number"])]} for row in found])

    def _write(self, collection: str, written: list[dict[str, Any]]) -> None:
        if written:
            self._wire.ask(lambda client: client.upsert(collection, written, **ONCE))

    def settle(self, shelf: str) -> None:
        """Have it loaded, which sweeping needs; questions wait by themselves for what is written.

        Raises:
            MovedError: The collection is gone.
        """
        self._wire.load(self._collection(shelf))

    def sweep(self, ledger: Ledger) -> None:
        """Delete what died, what runs left that never will count, and the ledgers before."""
        collection = self._collection(ledger.shelf)
        left = f"turn <= {ledger.turn}"
        if ledger.runs:
            left = f"{left} and not ({any_of('run', ledger.runs)})"
        self._delete(collection, f"died <= {ledger.published.sequence}")
        self._delete(collection, left)
        self._ledgers.forget()

    def _delete(self, collection: str, which: str) -> None:
        self._wire.ask(lambda client: client.delete(collection, filter=which, **ONCE))

    def others(self, shelf: str) -> list[str]:
        """The shelves of the copy beside one."""
        names = self._wire.ask(lambda client: client.list_collections(**ONCE))
        ours = re.compile(rf"{re.escape(self._address.copy)}_([0-9a-f]{{16}})")
        found = [match[1] for name in names if (match := ours.fullmatch(name))]
        return [other for other in found if other != shelf]

    def drop(self, shelf: str) -> None:
        """Remove the collection."""
        self._wire.drop(self._collection(shelf))

    def view(self, ledger: Ledger) -> CommitView:
        """What the ledger's readers see."""
        entries = MilvusEntries(self._wire, self._collection(ledger.shelf), ledger)
        return CommitView(entries, ledger.published)

    def close(self) -> None:
        """Let go of the server."""
        self._wire.close()


_FIELDS: Mapping[str, Mapping[str, int]] = {
    "key": {"max_length": 64},
    "number": {},
    "name": {"max_length": 32},
    "run": {"max_length": 32},
    "turn": {},
    "died": {},
    "readers": {"max_length": 32, "max_capacity": _TERMS},
    "facts": {"max_length": 32, "max_capacity": _TERMS},
    "words": {"max_length": MOST_BYTES},
    "kept": {"max_length": MOST_BYTES},
}
"""What an entry has beside its vector: whole numbers where there are no limits, else texts."""


def _schema(client: "MilvusClient", dimension: int) -> "CollectionSchema":
    from pymilvus import DataType, Function, FunctionType

    schema = client.create_schema(auto_id=False)
    extras: Mapping[str, dict[str, Any]] = defaultdict(
        dict,
        key={"is_primary": True},
        words={"enable_analyzer": True, "analyzer_params": {"tokenizer": "standard"}},
    )
    for name, limits in _FIELDS.items():
        kind = DataType.VARCHAR if limits else DataType.INT64
        if "max_capacity" in limits:
            schema.add_field(name, DataType.ARRAY, element_type=kind, **limits)
        else:
            schema.add_field(name, kind, **limits, **extras[name])
    schema.add_field("tokens", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_function(Function("bm25", FunctionType.BM25, ["words"], ["tokens"]))
    if dimension:
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimension)
    return schema


def _index(client: "MilvusClient", collection: str, delta: Delta) -> None:
    indexes = client.prepare_index_params()
    for name in _LOOKED_UP:
        indexes.add_index(name, index_type="INVERTED")
    numbers = {"bm25_k1": delta.tuning.k1, "bm25_b": delta.tuning.b}
    indexes.add_index(
        "tokens",
        index_type="SPARSE_INVERTED_INDEX",
        metric_type="BM25",
        params={**numbers, "params": numbers},  # once more where Milvus Lite looks for them
    )
    if delta.dimension:
        indexes.add_index("vector", index_type="AUTOINDEX", metric_type="IP")
    client.create_index(collection, indexes, sync=False, **ONCE)


def _row(entry: Entry, run: Run, tuning: Tuning) -> dict[str, Any]:
    passage = entry.record.passage
    terms = Terms.of(passage)
    tokens = [*terms.title.elements()] * round(tuning.title) + [*terms.text.elements()]
    row: dict[str, Any] = {
        "key": f"{run.name}-{entry.number}",
        "number": entry.number,
        "name": digest(passage.id),
        "run": run.name,
        "turn": run.turn,
        "died": _ALIVE,
        "readers": [digest(term) for term in entry.readers],
        "facts": [digest(term) for term in entry.facts],
        "words": text_of(tokens) or _WORDLESS,
        "kept": json.dumps(asdict(passage), ensure_ascii=False),
    }
    _require_fit(row, passage.id)
    dense = {"vector": entry.vector.astype(np.float32).tolist()} if entry.vector.size else {}
    return {**row, **dense}


def _require_fit(row: Mapping[str, Any], id: str) -> None:  # noqa: A002 the contract's name
    """Refuse what the server would refuse without saying which passage it was."""
    sizes = {name: (len(row[name].encode()), MOST_BYTES) for name in ("words", "kept")}
    sizes |= {name: (len(row[name]), _TERMS) for name in ("readers", "facts")}
    for name, (size, most) in sizes.items():
        if size > most:
            raise UsageError(
                f"passage {id} is too large for Milvus: {name} takes {size}, at most {most} fit",
                hint="smaller passages fit; other engines have no such limit",
            )
