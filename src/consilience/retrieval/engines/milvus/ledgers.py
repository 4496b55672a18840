"""The ledger in a server that compares nothing before it writes: a collection of its own for each.

Milvus makes a collection of a name once, whoever asks and however many ask at a time. So the n-th
ledger of a copy is the collection with n in its name, empty, with what the ledger says among its
properties, and the one with the highest number is in force. To replace the n-th is to make the
n+1-st, which only one can.

A publisher that was overtaken long ago can find its number free again, because ledgers that were
replaced are removed. What it makes then is lower than the one in force, so nobody reads it; it
looks which one is in force afterwards, and knows that it came second.
"""

import json
import re
from contextlib import suppress
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from consilience.errors import BusyError, RemoteError
from consilience.retrieval.engines.base import MovedError
from consilience.retrieval.engines.milvus.wire import ONCE, Wire
from consilience.retrieval.engines.runs import Kept, Ledger

if TYPE_CHECKING:
    from pymilvus import MilvusClient

_READINGS = 5
"""How often the newest ledger is looked for again because it was replaced meanwhile."""


class Ledgers:
    """The ledgers of one copy.

    Args:
        wire: The way to the server.
        copy: The name of the copy.
    """

    def __init__(self, wire: Wire, copy: str) -> None:
        self._wire = wire
        self._copy = copy
        self._named = re.compile(rf"{re.escape(copy)}_ledger_([1-9][0-9]{{0,14}})")

    def newest(self) -> Kept | None:
        """The ledger in force, with its number and a mark of its own; None where there is none.

        Raises:
            BusyError: It is replaced faster than it can be read.
        """
        for _ in range(_READINGS):
            number = max(self._numbers(), default=None)
            if number is None:
                return None
            with suppress(MovedError):
                return self._kept(number)
        raise BusyError(f"copy {self._copy} is published to faster than it can be read")

    def put(self, ledger: Ledger, kept: Kept | None) -> bool:
        """Make the ledger that follows `kept`; False if another one is in force then."""
        number = 1 + (kept.version[0] if kept else 0)
        mark = token_hex(8)
        said = {"ledger": json.dumps(ledger.to_dict()), "mark": mark}
        try:
            self._wire.once(lambda client: _make(client, self._name(number), said))
        except RemoteError:
            if max(self._numbers(), default=0) < number:
                raise
        now = self.newest()
        return now is not None and now.version == (number, mark)

    def forget(self) -> None:
        """Remove all but the one in force."""
        numbers = sorted(self._numbers())
        for number in numbers[:-1]:
            self._wire.drop(self._name(number))

    def _name(self, number: int) -> str:
        return f"{self._copy}_ledger_{number}"

    def _numbers(self) -> list[int]:
        names = self._wire.ask(lambda client: client.list_collections(**ONCE))
        return [int(found[1]) for name in names if (found := self._named.fullmatch(name))]

    def _kept(self, number: int) -> Kept:
        name = self._name(number)
        found = self._wire.ask(lambda client: client.describe_collection(name, **ONCE))
        said = found.get("properties") or {}
        return Kept(_unpacked(said.get("ledger")), (number, said.get("mark")))


def _make(client: "MilvusClient", name: str, properties: dict[str, str]) -> None:
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False)
    schema.add_field("key", DataType.INT64, is_primary=True)
    schema.add_field("nothing", DataType.FLOAT_VECTOR, dim=2)  # no collection goes without one
    client.create_collection(name, schema=schema, properties=properties, **ONCE)


def _unpacked(said: Any) -> Any:
    try:
        return json.loads(said)
    except (TypeError, ValueError):
        return said
