"""Milvus: a server that speaks gRPC, with its own BM25 over our tokens."""

from consilience.retrieval.engines.address import Address
from consilience.retrieval.engines.base import Engine, Limits
from consilience.retrieval.engines.milvus.ledgers import Ledgers
from consilience.retrieval.engines.milvus.shelves import MilvusShelves, recipe
from consilience.retrieval.engines.milvus.wire import Wire
from consilience.retrieval.engines.runs import RunEngine

__all__ = ["milvus_engine"]


def milvus_engine(address: Address, limits: Limits | None = None) -> Engine:
    """The engine at an address of the schemes `milvus+…`.

    Raises:
        DependencyError: The client is not installed.
        UsageError: Nothing encrypts what goes to another machine, or the file of `ca` is not there.
    """
    address.require_private()
    wire = Wire(address, limits or Limits())
    shelves = MilvusShelves(wire, Ledgers(wire, address.copy), address)
    return RunEngine(shelves, shown=address.shown, recipe=recipe)
