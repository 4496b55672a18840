"""Retrievers: BM25, dense and hybrid, over indexes derived from a store."""

from consilience.retrieval.base import Hit, Retriever
from consilience.retrieval.hybrid import HybridWeights
from consilience.retrieval.opening import Mode, open_retriever
from consilience.retrieval.refining import Refinement, refined
from consilience.retrieval.tuning import Tuning

__all__ = [
    "Hit",
    "HybridWeights",
    "Mode",
    "Refinement",
    "Retriever",
    "Tuning",
    "open_retriever",
    "refined",
]
