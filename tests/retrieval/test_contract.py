import pytest

from consilience.retrieval import HybridWeights, Retriever, open_retriever
from consilience.store import Store
from tests.retrieval.contract import RetrieverContract
from tests.retrieval.corpus import fill
from tests.retrieval.encoders import TrigramEncoder


class TestBm25(RetrieverContract):
    def open(self, store: Store) -> Retriever:
        return open_retriever(store, mode="bm25")


class TestDense(RetrieverContract):
    def open(self, store: Store) -> Retriever:
        return open_retriever(store, mode="dense", encoder=TrigramEncoder())


class TestHybrid(RetrieverContract):
    def open(self, store: Store) -> Retriever:
        weights = HybridWeights(zh=0.4, en=0.4, other=0.4)
        return open_retriever(store, mode="hybrid", encoder=TrigramEncoder(), weights=weights)


@pytest.mark.parametrize("mode", ["bm25", "hybrid"])
def test_simplified_questions_find_traditional_text(store: Store, mode: str) -> None:
    fill(store)
    retriever = open_retriever(store, mode=mode, encoder=TrigramEncoder())  # type: ignore[arg-type]
    assert retriever.search("停车证每月多少欧元？", k=1)[0].passage.source == "停車"
