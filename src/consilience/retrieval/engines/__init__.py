"""Engines past one machine: servers that hold a published copy of a store, chosen by URL."""

from consilience.retrieval.engines.base import Limits, Published
from consilience.retrieval.engines.opening import Copy, open_engine, open_engine_retriever
from consilience.retrieval.engines.published import Publisher, PublishReport

__all__ = [
    "Copy",
    "Limits",
    "PublishReport",
    "Published",
    "Publisher",
    "open_engine",
    "open_engine_retriever",
]
