"""The contract of retrievers, over every engine and mode."""

from collections.abc import Callable, Iterator

import pytest

from consilience.retrieval import Mode, Retriever
from consilience.retrieval.engines import open_engine
from consilience.retrieval.engines.base import Engine
from consilience.store import Store
from tests.retrieval.contract import RetrieverContract
from tests.retrieval.engines.following import PublishingRetriever
from tests.servers import MILVUS_SERVERS, SEARCH_SERVERS


class EngineContract(RetrieverContract):
    mode: Mode

    @pytest.fixture(autouse=True)
    def _engine(self, engine: Engine) -> None:
        self.engine = engine

    def open(self, store: Store) -> Retriever:
        return PublishingRetriever(store, self.engine, self.mode)


class PostgresContract(EngineContract):
    @pytest.fixture
    def engine(self, postgres_url: Callable[[], str]) -> Iterator[Engine]:
        engine = open_engine(postgres_url())
        yield engine
        engine.close()


class TestPostgresBm25(PostgresContract):
    mode = "bm25"


class TestPostgresDense(PostgresContract):
    mode = "dense"


class TestPostgresHybrid(PostgresContract):
    mode = "hybrid"


class SearchServerContract(EngineContract):
    @pytest.fixture(params=SEARCH_SERVERS)
    def engine(self, request: pytest.FixtureRequest) -> Iterator[Engine]:
        engine = open_engine(request.getfixturevalue(request.param)())
        yield engine
        engine.close()


class TestSearchServerBm25(SearchServerContract):
    mode = "bm25"


class TestSearchServerHybrid(SearchServerContract):
    mode = "hybrid"


class QdrantContract(EngineContract):
    @pytest.fixture
    def engine(self, qdrant_url: Callable[[], str]) -> Iterator[Engine]:
        engine = open_engine(qdrant_url())
        yield engine
        engine.close()


class TestQdrantBm25(QdrantContract):
    mode = "bm25"


class TestQdrantDense(QdrantContract):
    mode = "dense"


class TestQdrantHybrid(QdrantContract):
    mode = "hybrid"


class MilvusContract(EngineContract):
    @pytest.fixture(params=MILVUS_SERVERS)
    def engine(self, request: pytest.FixtureRequest) -> Iterator[Engine]:
        engine = open_engine(request.getfixturevalue(request.param)())
        yield engine
        engine.close()


class TestMilvusBm25(MilvusContract):
    mode = "bm25"


class TestMilvusDense(MilvusContract):
    mode = "dense"


class TestMilvusHybrid(MilvusContract):
    mode = "hybrid"
