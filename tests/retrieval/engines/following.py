"""A retriever over a copy that is published before every search, as the contract wants it."""

from collections.abc import Collection

from consilience.retrieval import Hit, HybridWeights, Mode
from consilience.retrieval.engines import Copy, Publisher
from consilience.retrieval.engines.base import Engine
from consilience.store import Store, Where
from tests.retrieval.encoders import TrigramEncoder

WEIGHTS = HybridWeights(zh=0.4, en=0.4, other=0.4)


class PublishingRetriever:
    """Publishes what the store has committed, then searches the copy alone."""

    def __init__(self, store: Store, engine: Engine, mode: Mode) -> None:
        self._publisher = Publisher(store, engine)
        encoder = None if mode == "bm25" else TrigramEncoder()
        self._retriever = Copy(engine).retriever(mode, encoder=encoder, weights=WEIGHTS)

    def search(
        self,
        question: str,
        *,
        k: int,
        access: Collection[str] | None = None,
        where: Where | None = None,
    ) -> list[Hit]:
        self._publisher.catch_up()
        return self._retriever.search(question, k=k, access=access, where=where)
