"""Elasticsearch and OpenSearch: one adapter, in the words that both understand."""

from consilience.retrieval.engines.address import Address
from consilience.retrieval.engines.base import Engine, Limits
from consilience.retrieval.engines.elastic.clients import CLIENTS
from consilience.retrieval.engines.elastic.dialects import DIALECTS
from consilience.retrieval.engines.elastic.shelves import ElasticShelves, recipe
from consilience.retrieval.engines.elastic.wire import Wire
from consilience.retrieval.engines.runs import RunEngine

__all__ = ["elastic_engine"]


def elastic_engine(address: Address, limits: Limits | None = None) -> Engine:
    """The engine at an address of the schemes `elasticsearch+…` and `opensearch+…`.

    Raises:
        DependencyError: The client is not installed.
        UsageError: Plain http to another machine.
    """
    address.require_private()
    limits = limits or Limits()
    wire = Wire(address, CLIENTS[address.engine](address), limits)
    shelves = ElasticShelves(wire, address, DIALECTS[address.engine])
    return RunEngine(shelves, shown=address.shown, recipe=recipe)
