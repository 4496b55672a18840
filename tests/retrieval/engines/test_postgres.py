"""What PostgreSQL must do beyond the contract: our BM25, one commit at a time, clear failures."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from consilience.documents import Document
from consilience.errors import (
    ConsilienceError,
    DamagedError,
    DependencyError,
    RemoteError,
    UsageError,
    VersionError,
)
from consilience.retrieval import Tuning
from consilience.retrieval.engines import Copy, Limits, open_engine
from consilience.retrieval.engines.address import Address
from consilience.retrieval.engines.base import (
    Engine,
    UnavailableError,
    View,
    asked,
)
from consilience.retrieval.engines.postgres import PostgresEngine
from consilience.retrieval.engines.postgres.writing import require_version
from consilience.retrieval.ranking import EVERYTHING, Scope
from consilience.store import Store, Where
from tests.retrieval.corpus import QUESTIONS, TEXTS, fill
from tests.retrieval.encoders import TrigramEncoder
from tests.retrieval.engines.acting import publish, rankings_as_bm25s, search

QUICK = Limits(connect=2, search=0.5, publish=5, attempts=2, pause=0.01)
CANARY = "c4n4ry-pässword"


@pytest.fixture
def url(postgres_url: Callable[[], str]) -> str:
    return postgres_url()


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    opened = open_engine(url)
    yield opened
    opened.close()


def rows(url: str, sql: str, *values: Any) -> list[Any]:
    """What a statement gives in the database of a URL, its `{}` being the copy."""
    address = Address.parse(url)
    with psycopg.connect(
        host=address.options["host"], user="postgres", dbname="postgres", autocommit=True
    ) as connection:
        cursor = connection.execute(sql.replace("{}", address.copy), values)
        return cursor.fetchall() if cursor.description else []


def connection_of(view: View) -> Any:
    """The connection that a view reads by."""
    return view._entries._connection  # type: ignore[attr-defined]


class TestBm25:
    @pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (0.6, 0.4), (2.0, 1.0), (0.0, 0.0)])
    def test_scores_are_those_of_an_independent_implementation(
        self, store: Store, engine: Engine, k1: float, b: float
    ) -> None:
        found = rankings_as_bm25s(store, engine, k1=k1, b=b, rel=1e-5)
        assert len(found) == len(QUESTIONS)

    def test_words_of_the_title_count_as_often_as_the_tuning_says(
        self, store: Store, engine: Engine
    ) -> None:
        store.add(Document("A leaflet.", source="title", title="Leave"))
        store.add(Document("Leave and leave and leave.", source="text"))
        for title, first in ((0.0, "text"), (20.0, "title")):
            Tuning(title=title, b=0.0).keep(store)
            publish(store, engine)
            assert search(engine, "leave")[0] == first
        Tuning(title=0.0).keep(store)
        publish(store, engine)
        assert search(engine, "leave") == ["text"]

    def test_statistics_are_those_of_the_passages_that_are_there(
        self, store: Store, engine: Engine, url: str
    ) -> None:
        fill(store)
        publish(store, engine)
        store.remove("leave", "年假")
        store.add(Document("Leave it.", source="visits", title="Notice"))
        publish(store, engine)
        fresh = open_engine(url + "x")
        publish(store, fresh)
        for table, order in (("terms", "token"), ("postings", "token, number")):
            sql = f"SELECT * FROM {{}}.{table} ORDER BY {order}"
            assert rows(url, sql) == rows(url + "x", sql)
        sql = "SELECT title_length, text_length, published - 'steps' FROM {}.state"
        assert rows(url, sql) == rows(url + "x", sql)
        fresh.close()

    def test_a_question_of_a_million_words_is_answered_from_its_first(
        self, store: Store, engine: Engine
    ) -> None:
        fill(store)
        publish(store, engine)
        question = f"annual leave {' '.join(f'w{n}' for n in range(100_000))}"
        assert len(asked(question)) == 1024
        assert search(engine, question)[0] == "leave"


class TestVectors:
    def test_the_graph_answers_as_comparing_all_does(self, store: Store, url: str) -> None:
        texts = [f"{TEXTS[name]} No. {n}." for n in range(40) for name in ("leave", "年假")]
        store.add(
            [
                Document(text, source=f"{n % 4}/{n}", access=("staff",) if n % 3 else ())
                for n, text in enumerate(texts)
            ]
        )
        graph = PostgresEngine(Address.parse(url), exact_below=1)
        exact = PostgresEngine(Address.parse(url + "x"))
        encoder = TrigramEncoder()
        for one in (graph, exact):
            publish(store, one)
        index = (
            "SELECT count(*) FROM pg_indexes WHERE schemaname = '{}' AND indexdef LIKE '%%hnsw%%'"
        )
        assert (rows(url, index), rows(url + "x", index)) == ([(1,)], [(0,)])
        vector = encoder.encode_questions(["How many days of annual leave?"])[0]
        for scope in (EVERYTHING, Scope(frozenset()), Scope(None, Where(sources=("3/",)))):
            left, right = (
                one.read(lambda view, s=scope: view.rank_dense(vector, depth=15, scope=s))
                for one in (graph, exact)
            )
            assert [n for n, _ in left] == [n for n, _ in right]
            assert len(right) == 15
        store.add(Document(f"{TEXTS['leave']} Again.", source="3/new"))
        publish(store, graph)
        scope = Scope(None, Where(sources=("3/new",)))
        found = graph.read(lambda view: view.rank_dense(vector, depth=3, scope=scope))
        assert len(found) == 1


class TestPublishing:
    def test_publishing_again_touches_nothing(self, store: Store, engine: Engine, url: str) -> None:
        fill(store)
        publish(store, engine)
        before = rows(url, "SELECT xmin, ctid FROM {}.state")
        publish(store, engine)
        assert rows(url, "SELECT xmin, ctid FROM {}.state") == before

    def test_somebodys_schema_is_left_alone(self, store: Store, engine: Engine, url: str) -> None:
        rows(url, "CREATE SCHEMA {}")
        rows(url, "CREATE TABLE {}.theirs AS SELECT 42 AS kept")
        fill(store, "leave")
        for replace in (False, True):
            with pytest.raises(UsageError) as error:
                publish(store, engine, replace=replace)
            copy = Address.parse(url).copy
            assert error.value.message == f"the database has a schema {copy!r} that is no copy"
        assert rows(url, "SELECT kept FROM {}.theirs") == [(42,)]

    def test_the_one_character_that_the_server_refuses_is_replaced(
        self, store: Store, engine: Engine
    ) -> None:
        text = "Annual\x00 leave of employees."
        store.add(Document(text, source="a", title="Leave\x00", metadata={"note": "x\x00y"}))
        assert publish(store, engine).passages == 1
        (hit,) = Copy(engine).retriever("bm25").search("annual leave", k=1)
        assert hit.passage.text == text.replace("\x00", "\ufffd")
        assert search(engine, "leave", where=Where(metadata=(("note", "x\x00y"),))) == ["a"]

    def test_a_copy_of_a_version_to_come_is_refused(
        self, store: Store, engine: Engine, url: str
    ) -> None:
        fill(store, "leave")
        publish(store, engine)
        rows(url, """UPDATE {}.state SET published = published || '{"format": 2}'""")
        for act in (lambda: publish(store, engine), lambda: search(engine, "leave")):
            with pytest.raises(VersionError) as error:
                act()
            assert error.value.message == f"{url} holds a copy of format 2, this version knows 1"
            assert error.value.hint == "pip install --upgrade consilience"

    def test_a_copy_of_another_recipe_is_refused_by_readers_and_made_anew(
        self, store: Store, engine: Engine, url: str
    ) -> None:
        fill(store, "leave")
        publish(store, engine)
        rows(url, """UPDATE {}.state SET published = published || '{"recipe": "tokens 0"}'""")
        with pytest.raises(VersionError) as error:
            search(engine, "leave")
        assert (
            error.value.message == f"{url} holds a copy that another version of this package made"
        )
        assert error.value.hint == f"consilience publish '{url}' makes it anew"
        assert publish(store, engine).added == 1
        assert search(engine, "leave") == ["leave"]

    def test_a_state_that_is_none_is_refused_and_replaced(
        self, store: Store, engine: Engine, url: str
    ) -> None:
        fill(store, "leave")
        publish(store, engine)
        rows(url, """UPDATE {}.state SET published = '{"half": "migrated"}'""")
        for act in (lambda: publish(store, engine), lambda: search(engine, "leave")):
            with pytest.raises(DamagedError, match=r"no state that can be understood") as error:
                act()
            assert error.value.hint == "consilience publish URL --replace makes the copy anew"
        publish(store, engine, replace=True)
        assert search(engine, "leave") == ["leave"]


class TestOneCommitAtATime:
    def test_a_question_reads_one_state_of_the_database_and_writes_nothing(
        self, store: Store, engine: Engine
    ) -> None:
        fill(store, "leave")
        publish(store, engine)

        def told(view: View) -> list[Any]:
            settings = ("transaction_isolation", "transaction_read_only")
            return [connection_of(view).execute(f"SHOW {one}").fetchone() for one in settings]

        assert engine.read(told) == [("repeatable read",), ("on",)]

    def test_a_lock_that_is_held_is_waited_for_and_then_told(self, store: Store, url: str) -> None:
        fill(store, "leave")
        quick = open_engine(url, limits=Limits(publish=0.3))
        address = Address.parse(url)
        with psycopg.connect(host=address.options["host"], user="postgres") as other:
            sql = "SELECT pg_advisory_lock(hashtextextended(%s, 0))"
            other.execute(sql, (f"consilience {address.copy}",))
            with pytest.raises(ConsilienceError) as error:
                publish(store, quick)
            assert error.value.kind in ("busy", "remote")
        publish(store, quick)
        quick.close()


class TestFailures:
    def test_a_server_that_is_down(self, store: Store, tmp_path: Path) -> None:
        engine = open_engine(f"postgresql://u@/d?host={tmp_path}", limits=QUICK)
        with pytest.raises(UnavailableError) as error:
            search(engine, "leave")
        assert "cannot be reached" in error.value.message
        assert error.value.hint == "look at the address, and whether the server is running"
        fill(store, "leave")
        with pytest.raises(RemoteError, match="cannot be reached"):
            publish(store, engine)

    def test_a_server_that_says_nothing(self, mute: int) -> None:
        engine = open_engine(f"postgresql://u@127.0.0.1:{mute}/d?sslmode=disable", limits=QUICK)
        begun = time.monotonic()
        with pytest.raises(RemoteError, match="did not answer in time"):
            engine.state()
        assert time.monotonic() - begun < 30

    def test_a_question_that_takes_too_long_is_ended(
        self, store: Store, engine: Engine, url: str
    ) -> None:
        fill(store, "leave")
        publish(store, engine)
        quick = open_engine(url, limits=QUICK)
        with pytest.raises(RemoteError) as error:
            quick.read(lambda view: connection_of(view).execute("SELECT pg_sleep(60)"))
        assert "did not answer in time: canceling statement" in error.value.message
        limit = quick.read(lambda view: connection_of(view).execute("SHOW statement_timeout"))
        assert limit.fetchone() == ("500ms",)
        assert search(quick, "leave") == ["leave"]
        quick.close()

    def test_a_server_that_stops_answering_is_left(
        self, store: Store, engine: Engine, url: str
    ) -> None:
        fill(store, "leave")
        publish(store, engine)
        quick = open_engine(url, limits=QUICK)

        def freeze(view: View) -> object:
            connection = connection_of(view)
            process = connection.info.backend_pid
            os.kill(process, signal.SIGSTOP)
            try:
                return connection.execute("SELECT 1")
            finally:
                os.kill(process, signal.SIGCONT)

        with pytest.raises(RemoteError, match="did not answer in time: it stopped answering"):
            quick.read(freeze)
        assert search(quick, "leave") == ["leave"]
        quick.close()

    def test_connections_that_died_are_made_anew(
        self, store: Store, engine: Engine, url: str
    ) -> None:
        fill(store, "leave")
        publish(store, engine)
        assert search(engine, "leave") == ["leave"]
        rows(
            url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'",
        )
        assert search(engine, "leave") == ["leave"]

    def test_what_stays_away_is_given_up_after_a_few_attempts(
        self, store: Store, engine: Engine, url: str
    ) -> None:
        fill(store, "leave")
        publish(store, engine)
        quick = open_engine(url, limits=QUICK)
        attempts = count()

        def die(view: View) -> object:
            next(attempts)
            return connection_of(view).execute("SELECT pg_terminate_backend(pg_backend_pid())")

        with pytest.raises(UnavailableError, match="cannot be reached"):
            quick.read(die)
        assert next(attempts) == QUICK.attempts
        quick.close()

    def test_a_wrong_password_is_told_without_it(
        self, url: str, locked: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        engine = open_engine(locked)
        with pytest.raises(RemoteError) as error:
            engine.state()
        assert "does not accept the user or the password" in error.value.message
        assert "CONSILIENCE_ENGINE_PASSWORD" in error.value.hint
        assert not isinstance(error.value, UnavailableError)
        _require_no_canary(error.value)

    def test_the_right_password_comes_from_the_environment(
        self, locked: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CONSILIENCE_ENGINE_PASSWORD", "right")
        engine = open_engine(locked.replace(":c4n4ry-p%C3%A4ssword", ""))
        assert engine.state() is None
        engine.close()

    def test_a_user_who_may_not_publish(self, store: Store, locked: str) -> None:
        fill(store, "leave")
        engine = open_engine(locked.replace("c4n4ry-p%C3%A4ssword", "right"))
        with pytest.raises(RemoteError) as error:
            publish(store, engine)
        assert "does not let this user do that" in error.value.message
        assert error.value.hint.startswith("publishing needs the right to make schemas")
        engine.close()

    def test_a_database_that_is_not_there(self, postgres_socket: Path) -> None:
        engine = open_engine(f"postgresql://postgres@/nowhere?host={postgres_socket}", limits=QUICK)
        with pytest.raises(RemoteError, match=r'has no such database: .*"nowhere" does not exist'):
            engine.state()

    def test_an_old_pgvector(self) -> None:
        require_version("0.8.0")
        require_version("0.10.1")
        with pytest.raises(RemoteError) as error:
            require_version("0.6.2")
        assert error.value.message == "the database has pgvector 0.6.2, at least 0.8 is needed"

    def test_missing_packages(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "psycopg", None)
        with pytest.raises(DependencyError) as error:
            open_engine(url)
        assert error.value.hint == "pip install 'consilience[postgres]'"


@pytest.fixture
def locked(postgres_socket: Path) -> Iterator[str]:
    """A URL with the wrong password of a user who must give one."""
    url = f"postgresql://postgres@/postgres?host={postgres_socket}"
    folder = Path(rows(url, "SHOW data_directory")[0][0])
    rules = folder / "pg_hba.conf"
    kept = rules.read_text()
    rows(url, "CREATE ROLE locked LOGIN PASSWORD 'right'")
    rules.write_text(f"local all locked scram-sha-256\n{kept}")
    rows(url, "SELECT pg_reload_conf()")
    yield f"postgresql://locked:c4n4ry-p%C3%A4ssword@/postgres?host={postgres_socket}"
    rules.write_text(kept)
    rows(url, "SELECT pg_reload_conf()")
    rows(url, "DROP ROLE locked")


def _require_no_canary(error: BaseException) -> None:
    """The password is nowhere in an error: text, JSON, representation, traceback, its causes."""
    import traceback

    told = "".join(traceback.format_exception(error))
    told += repr(error) + str(error) + json.dumps(error.to_dict())  # type: ignore[attr-defined]
    assert error.__cause__ is None
    for secret in (CANARY, "c4n4ry"):
        assert secret not in told
