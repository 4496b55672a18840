"""Qdrant: a server, or a folder of this machine through the client's local mode."""

from consilience.retrieval.engines.address import Address
from consilience.retrieval.engines.base import Engine, Limits
from consilience.retrieval.engines.qdrant.shelves import QdrantShelves, recipe
from consilience.retrieval.engines.qdrant.wire import Wire
from consilience.retrieval.engines.runs import RunEngine

__all__ = ["qdrant_engine"]


def qdrant_engine(address: Address, limits: Limits | None = None) -> Engine:
    """The engine at an address of the schemes `qdrant+…`.

    Raises:
        DependencyError: The client is not installed.
        UsageError: Plain http to another machine.
        BusyError: Another process has the folder open.
    """
    if not address.engine_is_local:
        address.require_private()
    wire = Wire(address, limits or Limits())
    return RunEngine(QdrantShelves(wire, address), shown=address.shown, recipe=recipe)
