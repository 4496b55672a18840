"""Retrievers: BM25, dense and hybrid, over indexes derived from a store."""

from consilience.retrieval.base import Hit, Retriever
from consilience.retrieval.hybrid import HybridWeights
from consilience.retrieval.opening import Mode, open_retriever

__all__ = ["Hit", "HybridWeights", "Mode", "Retriever", "open_retriever"]
