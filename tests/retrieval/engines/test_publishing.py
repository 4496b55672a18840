"""Publishing, over every engine: what is told, what is refused, and one commit at a time."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from consilience.documents import Document, Passage
from consilience.errors import (
    BusyError,
    DamagedError,
    FingerprintError,
    MissingError,
    UsageError,
)
from consilience.retrieval import HybridWeights, Tuning
from consilience.retrieval.engines import Copy, Publisher, PublishReport, open_engine
from consilience.retrieval.engines.base import Delta, Engine, MovedError, View, asked
from consilience.retrieval.ranking import EVERYTHING, Scope
from consilience.store import Store, Where, visible
from tests.retrieval.corpus import TEXTS, fill
from tests.retrieval.encoders import TrigramEncoder
from tests.retrieval.engines.acting import publish, search
from tests.servers import MILVUS_SERVERS, SEARCH_SERVERS

SERVERS = ["postgres_url", *SEARCH_SERVERS, *MILVUS_SERVERS]
"""Engines that several processes can use at once."""


@pytest.fixture(params=[*SERVERS, "qdrant_url"])
def url(request: pytest.FixtureRequest) -> str:
    made = request.getfixturevalue(request.param)()
    assert isinstance(made, str)
    return made


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    opened = open_engine(url)
    yield opened
    opened.close()


class TestPublishing:
    def test_what_was_done_is_told(self, store: Store, engine: Engine, url: str) -> None:
        fill(store)
        told: list[tuple[int, int]] = []
        first = Publisher(store, engine, heard=lambda *counts: told.append(counts)).catch_up()
        assert first == PublishReport(url, store.sequence, len(TEXTS), len(TEXTS), 0)
        assert told == [(len(TEXTS), len(TEXTS))]
        assert publish(store, engine) == PublishReport(url, store.sequence, len(TEXTS), 0, 0)
        store.remove("leave")
        fill(store, "visits")
        store.add(Document("New.", source="new"))
        third = publish(store, engine)
        assert third == PublishReport(url, store.sequence, len(TEXTS), 1, 1)

    def test_a_tuning_is_published_without_a_commit(self, store: Store, engine: Engine) -> None:
        fill(store)
        publish(store, engine)
        Tuning(en=1.0, k=7).keep(store)
        assert publish(store, engine).added == 0
        assert Tuning.of(Copy(engine)) == Tuning(en=1.0, k=7)

    @pytest.mark.parametrize("url", ["qdrant_url"], indirect=True)
    def test_the_shares_of_the_store_reach_the_searches_of_its_copy(
        self, store: Store, engine: Engine
    ) -> None:
        fill(store)
        Tuning(en=0.0).keep(store)
        publish(store, engine)
        encoder = TrigramEncoder()
        retriever = Copy(engine).retriever(encoder=encoder, weights=HybridWeights(en=1.0))
        assert retriever.search("annual leave", k=1)[0].passage.source == "leave"
        assert encoder.questions == []

    @pytest.mark.parametrize("url", ["qdrant_url"], indirect=True)
    def test_keys_that_an_earlier_step_brought_may_be_filtered_by(
        self, store: Store, engine: Engine
    ) -> None:
        store.add(Document(TEXTS["leave"], source="a", metadata={"year": "1999"}))
        publish(store, engine)
        fill(store, "loans")
        publish(store, engine)
        other = Where(metadata=(("year", "2000"),))
        assert search(engine, "annual leave", where=other) == []

    @pytest.mark.parametrize("url", ["postgres_url", "qdrant_url"], indirect=True)
    def test_names_and_values_of_metadata_are_told_apart(
        self, store: Store, engine: Engine
    ) -> None:
        for source, metadata in (("one", {"a": "b=c"}), ("two", {"a=b": "c"})):
            store.add(Document(TEXTS["leave"], source=source, metadata=metadata))
        publish(store, engine)
        for source, pair in (("one", ("a", "b=c")), ("two", ("a=b", "c"))):
            assert search(engine, "annual leave", where=Where(metadata=(pair,))) == [source]

    def test_another_stores_copy_is_refused_or_replaced(
        self, store: Store, engine: Engine, url: str, tmp_path: Path
    ) -> None:
        fill(store, "leave")
        publish(store, engine)
        with Store.open(tmp_path / "other", encoder=TrigramEncoder()) as other:
            fill(other, "loans")
            with pytest.raises(UsageError) as error:
                publish(other, engine)
            assert error.value.message == (
                f"{url} holds a copy of another store than the one at {other.path}"
            )
            assert f"consilience publish '{url}' --store {other.path} --replace" in error.value.hint
            assert search(engine, "annual leave") == ["leave"]
            report = publish(other, engine, replace=True)
            assert (report.passages, report.added, report.removed) == (1, 1, 0)
            assert search(engine, "annual leave interest") == ["loans"]

    def test_a_store_that_was_put_back_is_published_anew(
        self, store: Store, engine: Engine, tmp_path: Path
    ) -> None:
        fill(store, "leave")
        backup = store._database.connection.serialize("main")
        path = store.path
        fill(store, "loans", "visits")
        store.remove("leave")
        publish(store, engine)
        store.close()
        for leftover in path.glob("store.sqlite3*"):
            leftover.unlink()
        (path / "store.sqlite3").write_bytes(backup)
        with Store.open(path, encoder=TrigramEncoder()) as again:
            assert publish(again, engine).generation == again.sequence
            assert search(engine, "annual leave interest rate") == ["leave"]

    def test_another_encoder_makes_it_anew(self, store: Store, engine: Engine) -> None:
        fill(store)
        publish(store, engine)
        other = TrigramEncoder(fingerprint="trigrams-0002", dimension=32)
        store.re_embed(other)
        copy = Copy(engine)
        assert copy.retriever("dense", encoder=TrigramEncoder()).search("annual leave", k=1)
        publish(store, engine)
        with pytest.raises(FingerprintError) as error:
            copy.retriever("dense", encoder=TrigramEncoder()).search("annual leave", k=1)
        assert "are from encoder trigrams-0002, received encoder trigrams-0001" in str(error.value)
        found = copy.retriever("dense", encoder=other).search("days of annual leave", k=1)
        assert found[0].passage.source == "leave"

    def test_nothing_published_is_said(self, engine: Engine, url: str) -> None:
        with pytest.raises(MissingError) as error:
            search(engine, "leave")
        assert error.value.message == f"nothing has been published to {url}"
        assert error.value.hint == f"consilience publish '{url}' --store DIR"

    def test_passages_are_found_by_their_ids(self, store: Store, engine: Engine) -> None:
        fill(store)
        publish(store, engine)
        copy = Copy(engine)
        passage = store.passages([1])[1]
        assert copy.passage(passage.id) == passage
        with pytest.raises(MissingError, match=r"^there is no passage 'nowhere' in "):
            copy.passage("nowhere")
        assert copy.state.identity == store.identity


HELD = [None, frozenset[str](), frozenset({"staff"}), frozenset({"board", "x"})]


class TestScopes:
    @pytest.mark.parametrize("held", HELD, ids=["owner", "nobody", "staff", "board"])
    def test_what_a_reader_may_not_see_takes_no_place_in_a_ranking(
        self, store: Store, engine: Engine, held: frozenset[str] | None
    ) -> None:
        """What is shown is decided anew, so a search that ends well says nothing of this."""
        fill(store, "visits")
        fill(store, "leave", access=("staff",))
        fill(store, "loans", access=("board", "bank"))
        publish(store, engine)
        tokens = asked("visiting hours, annual leave, interest rate")
        vector = TrigramEncoder().encode_questions(["annual leave"])[0]
        scopes = (Scope(held), Scope(held, Where(sources=("leave", "loans"))))

        def ranked(view: View) -> list[set[str]]:
            rankings = [view.rank_lexical(tokens, depth=9, scope=scope) for scope in scopes]
            rankings += [view.rank_dense(vector, depth=9, scope=scope) for scope in scopes]
            found = [view.passages([number for number, _ in ranking]) for ranking in rankings]
            return [{passage.source for passage in each.values()} for each in found]

        labels = {"visits": (), "leave": ("staff",), "loans": ("board", "bank")}
        seen = {source for source, access in labels.items() if visible(access, held)}
        assert engine.read(ranked) == [seen, seen - {"visits"}] * 2


class TestVectors:
    def test_scores_are_inner_products(self, store: Store, engine: Engine) -> None:
        fill(store, "leave", "loans")
        publish(store, engine)
        vector = TrigramEncoder().encode_questions(["annual leave"])[0]
        ranking = engine.read(lambda view: view.rank_dense(vector, depth=5, scope=EVERYTHING))
        held = store.vectors([n for n, _ in ranking])
        expected = dict(zip(held.numbers.tolist(), held.vectors @ vector, strict=True))
        assert dict(ranking) == pytest.approx(expected, abs=1e-5)

    @pytest.mark.parametrize("vector", [np.zeros(3, np.float32), np.full(64, np.nan, np.float32)])
    def test_a_question_whose_vector_does_not_fit_is_refused(
        self, store: Store, engine: Engine, vector: np.ndarray
    ) -> None:
        fill(store, "leave")
        publish(store, engine)
        with pytest.raises(UsageError) as error:
            engine.read(lambda view: view.rank_dense(vector, depth=5, scope=EVERYTHING))
        assert error.value.message == (
            f"the question's vector is not 64 finite numbers, received shape {vector.shape}"
        )

    @pytest.mark.parametrize("damage", [np.full(64, np.inf, "<f2"), np.zeros(3, "<f2")])
    def test_a_damaged_vector_is_not_published(
        self, store: Store, engine: Engine, damage: np.ndarray
    ) -> None:
        fill(store, "leave")
        publish(store, engine)
        fill(store, "loans")
        sql = "UPDATE passages SET vector = ? WHERE number = (SELECT max(number) FROM passages)"
        store._database.connection.execute(sql, (damage.tobytes(),))
        with pytest.raises(DamagedError, match=r"^the vector of passage .* is not 64 finite num"):
            publish(store, engine)
        assert engine.state().passages == 1  # type: ignore[union-attr]
        assert search(engine, "annual leave") == ["leave"]


class StoppedError(Exception):
    pass


class TestOneCommitAtATime:
    @pytest.mark.parametrize("whole", [False, True])
    def test_a_publisher_that_fails_half_way_leaves_the_old_commit(
        self, store: Store, engine: Engine, whole: bool
    ) -> None:
        fill(store, "leave")
        publish(store, engine)
        before = engine.state()
        store.remove("leave")
        store.add(many(600))

        def stop(done: int, total: int) -> None:
            if done > 300:
                raise StoppedError

        with pytest.raises(StoppedError):
            Publisher(store, engine, replace=whole, heard=stop).catch_up()
        assert engine.state() == before
        assert search(engine, "annual leave") == ["leave"]
        publish(store, engine)
        assert len(search(engine, "leave version")) == 20

    @pytest.mark.parametrize("url", SERVERS, indirect=True)
    def test_a_publisher_that_is_killed_leaves_the_old_commit(
        self, store: Store, engine: Engine, url: str
    ) -> None:
        fill(store, "leave")
        publish(store, engine)
        store.remove("leave")
        store.add(many(600))
        child = subprocess.Popen(
            [sys.executable, "-c", _PUBLISH, str(store.path), url],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"half\n"
        assert search(engine, "annual leave") == ["leave"]
        child.kill()
        child.wait()
        assert search(engine, "annual leave") == ["leave"]
        assert publish(store, engine).passages == 600
        assert "leave" not in search(engine, "annual leave")

    @pytest.mark.parametrize("url", SERVERS, indirect=True)
    def test_every_read_is_one_commit(self, store: Store, url: str) -> None:
        """Two passages say the same number in every commit; no reader sees them differ."""

        def commit(number: int) -> None:
            store.add(pair(number))

        commit(0)
        engines = [open_engine(url) for _ in range(4)]
        publish(store, engines[0])
        wrong: list[object] = []
        done = threading.Event()
        reads = 0  # of the first reader, so that no other counts beside it

        def read(engine: Engine) -> None:
            nonlocal reads
            while not done.is_set():
                try:
                    hits = Copy(engine).retriever("bm25").search("pair", k=10)
                except Exception as error:  # noqa: BLE001 - reported by the assertion below
                    wrong.append(error)
                    return
                numbers = {hit.passage.text.split()[-1] for hit in hits}
                if engine is engines[0]:
                    reads += 1
                if len(numbers) != 1 or len(hits) != 2:
                    wrong.append(hits)

        def write(engine: Engine) -> None:
            while not done.is_set():
                try:
                    publish(store, engine)
                except BusyError:
                    continue
                except Exception as error:  # noqa: BLE001 - reported by the assertion below
                    wrong.append(error)
                    return

        threads = [
            *(threading.Thread(target=read, args=(engine,)) for engine in engines[:2]),
            *(threading.Thread(target=write, args=(engine,)) for engine in engines[2:]),
        ]
        for thread in threads:
            thread.start()
        number = 0
        while number < 24 or (reads < 10 and not wrong):  # on a slow machine, more commits
            number += 1
            commit(number)
            if number % 8 == 0:
                publish(store, engines[0], replace=True)
        done.set()
        for thread in threads:
            thread.join()
        publish(store, engines[0])
        assert wrong == []
        hits = Copy(engines[0]).retriever("bm25").search("pair", k=10)
        assert {hit.passage.text.split()[-1] for hit in hits} == {str(number)}
        for engine in engines:
            engine.close()

    def test_a_change_from_a_state_that_is_gone_is_refused(
        self, store: Store, engine: Engine
    ) -> None:
        fill(store, "leave")
        publish(store, engine)
        before = engine.state()
        assert before is not None
        fill(store, "loans")
        publish(store, engine)
        delta = Delta(before, False, 64, Tuning(), {}, iter([]), lambda: (0, 0), lambda: before)
        with pytest.raises(MovedError, match=r"^someone else has published to "):
            engine.publish(delta)
        assert engine.state() != before

    def test_a_publisher_that_always_comes_too_late_gives_up(
        self, store: Store, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fill(store, "leave")

        def moved(delta: Delta) -> None:
            raise MovedError("too late")

        monkeypatch.setattr(engine, "publish", moved)
        with pytest.raises(BusyError, match=r"^others keep publishing to "):
            publish(store, engine)


def many(count: int) -> list[Passage]:
    """Passages of one source, which come in one commit."""
    texts = [f"Leave, version {n}." for n in range(count)]
    return [
        Passage(f"v{n}", t, "", "many", None, 50 * n, 50 * n + len(t)) for n, t in enumerate(texts)
    ]


def pair(number: int) -> list[Passage]:
    """Two passages of one source, which come in one commit."""
    texts = (f"first of the pair {number}", f"second of the pair {number}")
    return [
        Passage(f"{place}", text, "", "pair", None, 100 * place, 100 * place + len(text))
        for place, text in enumerate(texts)
    ]


_PUBLISH = """
import sys, time
from consilience.retrieval.engines import Publisher, open_engine
from consilience.store import Store

def heard(done, total):
    if done > 300:
        print("half", flush=True)
        time.sleep(60)

store = Store.open(sys.argv[1], create=False)
Publisher(store, open_engine(sys.argv[2]), heard=heard).catch_up()
"""
