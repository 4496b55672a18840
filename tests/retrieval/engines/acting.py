"""What the tests of every engine do with one, and what all engines of runs must bear."""

from typing import Any

import bm25s
import pytest

from consilience.documents import Document
from consilience.errors import RemoteError
from consilience.retrieval import Tuning
from consilience.retrieval.engines import Copy, Publisher, PublishReport
from consilience.retrieval.engines.base import Engine, Terms, asked
from consilience.retrieval.ranking import EVERYTHING, Ranking
from consilience.store import Store
from tests.retrieval.corpus import QUESTIONS, fill


def publish(store: Store, engine: Engine, *, replace: bool = False) -> PublishReport:
    return Publisher(store, engine, replace=replace).catch_up()


def search(engine: Engine, question: str, mode: Any = "bm25", **options: Any) -> list[str]:
    found = Copy(engine).retriever(mode).search(question, k=20, **options)
    return [hit.passage.source for hit in found]


def rankings_as_bm25s(
    store: Store, engine: Engine, *, k1: float, b: float, rel: float = 1e-4
) -> list[Ranking]:
    """Rankings of all questions, once their scores were found to be those of bm25s."""
    fill(store)
    Tuning(k1=k1, b=b).keep(store)
    publish(store, engine)
    rows = [row for batch in store.changes(0).added for row in batch]
    passages = store.passages([row.number for row in rows])
    tokens = [[*Terms.of(passages[row.number]).text.elements()] for row in rows]
    index = bm25s.BM25(method="lucene", k1=k1, b=b)
    index.index(tokens, show_progress=False)
    rankings = []
    for question in QUESTIONS:
        wanted = asked(question)
        ranking = engine.read(
            lambda view, wanted=wanted: view.rank_lexical(wanted, depth=20, scope=EVERYTHING)
        )
        known = [token for token in wanted.elements() if any(token in one for one in tokens)]
        scores = (1 + k1) * index.get_scores(known)
        expected = {r.number: s for r, s in zip(rows, scores, strict=True) if s > 0}
        assert dict(ranking) == pytest.approx(expected, rel=rel)
        rankings.append(ranking)
    return rankings


class RunsContract:
    """What engines of runs must bear, whatever they are made of."""

    @pytest.fixture
    def other(self, engine: Engine) -> Engine:
        """Who publishes meanwhile; the same engine where there is no second way to its server."""
        return engine

    def test_what_could_not_be_swept_is_not_seen(
        self, store: Store, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(ledger: object) -> None:
            raise RemoteError("no")

        fill(store, "leave", "loans")
        publish(store, engine)
        monkeypatch.setattr(engine._shelves, "sweep", fail)  # type: ignore[attr-defined]
        store.remove("leave")
        assert publish(store, engine).removed == 1
        assert search(engine, "annual leave interest") == ["loans"]

    def test_a_publisher_that_was_overtaken_begins_again(
        self, store: Store, engine: Engine, other: Engine
    ) -> None:
        fill(store, "loans")
        publish(store, engine)
        fill(store, "leave")
        overtaken = []

        def overtake(done: int, total: int) -> None:
            if not overtaken:
                overtaken.append(True)
                store.remove("leave")
                store.add(Document("Annual leave is over.", source="news"))
                publish(store, other)

        report = Publisher(store, engine, heard=overtake).catch_up()
        assert report.generation == store.sequence
        assert search(engine, "annual leave interest") == ["news", "loans"]
        assert search(other, "annual leave interest") == ["news", "loans"]
