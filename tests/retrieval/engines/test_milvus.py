"""What Milvus must do beyond the contract: one ledger at a time, its BM25, and clear failures.

Milvus Lite stands for the server, over gRPC like one. What it and a server must agree on for no
commit to be lost, making a collection once, is also asked of a real server where the environment
names one.
"""

import json
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from pymilvus.grpc_gen import common_pb2, milvus_pb2, milvus_pb2_grpc

from consilience.documents import Document
from consilience.errors import DamagedError, DependencyError, RemoteError, UsageError
from consilience.retrieval import Tuning
from consilience.retrieval.engines import Copy, Limits, open_engine
from consilience.retrieval.engines.address import Address
from consilience.retrieval.engines.base import Engine, Published, UnavailableError
from consilience.retrieval.engines.milvus import shelves
from consilience.retrieval.engines.milvus.ledgers import Ledgers
from consilience.retrieval.engines.milvus.wire import ONCE, Wire
from consilience.retrieval.engines.runs import Kept, Ledger
from consilience.store import Store
from tests.retrieval.corpus import fill
from tests.retrieval.engines.acting import RunsContract, publish, rankings_as_bm25s, search
from tests.retrieval.engines.test_elastic import answering
from tests.searchserver import serving
from tests.servers import Urls

QUICK = Limits(connect=1, search=1, publish=2, attempts=3, pause=0.01)
CANARY = "c4n4ry-key"


@pytest.fixture
def url(milvus_url: Urls) -> str:
    return milvus_url()


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    opened = open_engine(url)
    yield opened
    opened.close()


def wire_of(engine: Engine) -> Wire:
    wire = engine._shelves._wire  # type: ignore[attr-defined]
    assert isinstance(wire, Wire)
    return wire


def collections(engine: Engine, copy: str) -> dict[str, int]:
    """How many entries there are, by the name of the collection without the copy's."""

    def count_all(client: Any) -> dict[str, int]:
        names = [one for one in client.list_collections() if one.startswith(f"{copy}_")]
        sizes = [client.get_collection_stats(name)["row_count"] for name in names]
        return {
            name.removeprefix(f"{copy}_"): int(size)
            for name, size in zip(names, sizes, strict=True)
        }

    return wire_of(engine).ask(count_all)


class TestBm25:
    @pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (0.6, 0.4), (2.0, 1.0)])
    def test_scores_are_those_of_an_independent_implementation(
        self, store: Store, engine: Engine, k1: float, b: float
    ) -> None:
        for ranking in rankings_as_bm25s(store, engine, k1=k1, b=b):
            assert ranking == sorted(ranking, key=lambda one: (-one[1], one[0]))

    def test_words_of_the_title_count_in_whole_repetitions(
        self, store: Store, engine: Engine
    ) -> None:
        store.add(Document("A leaflet.", source="title", title="Leave"))
        store.add(Document("Leave and leave and leave.", source="text"))
        for title, found in ((0.4, ["text"]), (1.0, ["text", "title"]), (20.0, ["title", "text"])):
            Tuning(title=title, b=0.0).keep(store)
            publish(store, engine)
            assert search(engine, "leave") == found

    def test_a_tuning_that_the_server_does_not_take(self, store: Store, engine: Engine) -> None:
        fill(store, "leave")
        Tuning(k1=3.5).keep(store)
        with pytest.raises(UsageError) as error:
            publish(store, engine)
        assert error.value.message == "Milvus takes a k1 of at most 3, the store has 3.5"

    def test_a_question_without_end(self, store: Store, engine: Engine) -> None:
        fill(store)
        publish(store, engine)
        assert search(engine, "leave " * 20_000)[0] == "leave"

    def test_a_passage_without_words_is_there(self, store: Store, engine: Engine) -> None:
        store.add(Document("… — !", source="marks"))
        fill(store, "leave")
        assert publish(store, engine).passages == 2
        assert search(engine, "none of the annual leave") == ["leave"]


class TestEntries:
    def test_what_is_larger_than_a_field_is_told_with_its_passage(
        self, store: Store, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fill(store, "leave")
        for limit, told in (
            (
                "MOST_BYTES",
                r"^passage .* is too large for Milvus: words takes \d\d+, at most 5 fit",
            ),
            ("_TERMS", r"^passage .* is too large for Milvus: readers takes 1, at most 0 fit"),
        ):
            with monkeypatch.context() as patched:
                patched.setattr(shelves, limit, 5 if limit == "MOST_BYTES" else 0)
                with pytest.raises(UsageError, match=told):
                    publish(store, engine)

    def test_labels_and_sources_end_no_string_of_a_filter(
        self, store: Store, engine: Engine
    ) -> None:
        label = """a"] or run != "b' \\ %"""
        store.add(Document("Annual leave.", source=label, access=(label,)))
        store.add(Document("Annual leave.", source="other", access=("other",)))
        publish(store, engine)
        assert search(engine, "leave", access=[label]) == [label]
        assert search(engine, "leave", access=['*"] or true or run in ["']) == []

    def test_vectors_come_back_as_they_were(self, store: Store, engine: Engine) -> None:
        fill(store)
        publish(store, engine)
        numbers = [row.number for batch in store.changes(0).added for row in batch]
        kept, copied = store.vectors(numbers), Copy(engine).vectors([*reversed(numbers), 999])
        assert copied.numbers.tolist() == kept.numbers.tolist()
        assert np.array_equal(copied.vectors, kept.vectors)
        assert copied.vectors.dtype == kept.vectors.dtype


class TestShelves(RunsContract):
    def test_what_nobody_sees_is_swept(self, store: Store, engine: Engine, url: str) -> None:
        fill(store)
        publish(store, engine)
        publish(store, engine, replace=True)
        store.remove("leave")
        store.add(Document("New.", source="new"))
        publish(store, engine)
        assert sorted(collections(engine, Address.parse(url).copy).values()) == [0, 10]

    def test_a_collection_that_was_released_is_loaded_again(
        self, store: Store, engine: Engine, url: str
    ) -> None:
        fill(store)
        publish(store, engine)
        copy = Address.parse(url).copy
        (shelf,) = [name for name in collections(engine, copy) if "ledger" not in name]
        wire_of(engine).ask(lambda client: client.release_collection(f"{copy}_{shelf}", **ONCE))
        assert search(engine, "annual leave")[0] == "leave"

    def test_an_attempt_that_was_cut_off_leaves_nothing_in_the_way(
        self, store: Store, engine: Engine, url: str
    ) -> None:
        wire = wire_of(engine)
        failing = iter([UnavailableError("cut off")])
        once = wire.once

        def cut(act: Any) -> Any:
            done = once(act)
            if act.__name__ == "make" and (error := next(failing, None)):
                raise error
            return done

        wire.once = cut  # type: ignore[method-assign]
        wire._limits = QUICK
        fill(store)
        assert publish(store, engine).passages == 10
        assert next(failing, None) is None
        assert search(engine, "annual leave")[0] == "leave"

    def test_entries_that_are_gone_are_told(self, store: Store, engine: Engine, url: str) -> None:
        fill(store, "leave")
        publish(store, engine)
        (shelf,) = [
            name for name in collections(engine, Address.parse(url).copy) if "ledger" not in name
        ]
        engine._shelves.drop(shelf)  # type: ignore[attr-defined]
        fill(store, "loans")
        for act in (lambda: search(engine, "leave"), lambda: publish(store, engine)):
            with pytest.raises(DamagedError, match="are gone, though its ledger is there"):
                act()
        publish(store, engine, replace=True)
        assert search(engine, "annual leave") == ["leave"]


STATE = Published("store", 7, "", 0, 1, 0, "recipe")
LEDGER = Ledger(STATE, "0123456789abcdef", ("run",), 1)


class LedgerContract:
    """Compare and set, made of nothing but collections that can be made once."""

    @pytest.fixture
    def wire(self, start: str) -> Iterator[Wire]:
        wire = Wire(Address.parse(start), Limits())
        yield wire
        wire.ask(lambda client: [client.drop_collection(n) for n in client.list_collections()])
        wire.close()

    def test_what_was_put_is_there(self, wire: Wire) -> None:
        ledgers = Ledgers(wire, "a")
        assert ledgers.newest() is None
        assert ledgers.put(LEDGER, None)
        first = ledgers.newest()
        assert first is not None
        assert Ledger.parse(first.found) == LEDGER
        assert ledgers.put(replace(LEDGER, turn=2), first)
        second = ledgers.newest()
        assert second is not None
        assert Ledger.parse(second.found).turn == 2
        assert second.version != first.version

    def test_of_many_who_put_at_once_one_does(self, wire: Wire) -> None:
        ledgers = [Ledgers(wire, "a") for _ in range(6)]
        assert ledgers[0].put(LEDGER, None)
        kept = ledgers[0].newest()
        together = threading.Barrier(len(ledgers))

        def put(turn: int) -> bool:
            together.wait()
            return ledgers[turn].put(replace(LEDGER, turn=100 + turn), kept)

        with futures.ThreadPoolExecutor(len(ledgers)) as threads:
            done = list(threads.map(put, range(len(ledgers))))
        assert done.count(True) == 1
        now = ledgers[0].newest()
        assert now is not None
        assert now.found["turn"] == 100 + done.index(True)

    def test_one_who_was_overtaken_long_ago_comes_second(self, wire: Wire) -> None:
        ledgers = Ledgers(wire, "a")
        assert ledgers.put(LEDGER, None)
        old = ledgers.newest()
        for turn in (2, 3):
            assert ledgers.put(replace(LEDGER, turn=turn), ledgers.newest())
        ledgers.forget()
        for kept in (None, old):  # their numbers are free again
            assert not ledgers.put(replace(LEDGER, turn=9), kept)
        now = ledgers.newest()
        assert now is not None
        assert now.found["turn"] == 3
        ledgers.forget()
        assert wire.ask(lambda client: client.list_collections()) == ["a_ledger_3"]

    def test_copies_with_names_alike_do_not_meet(self, wire: Wire) -> None:
        for name in ("a", "a_ledger", "a_ledger_1"):
            ledgers = Ledgers(wire, name)
            assert ledgers.newest() is None
            assert ledgers.put(LEDGER, None)
        assert Ledgers(wire, "a").newest().version[0] == 1  # type: ignore[union-attr]


class TestLedgersOfLite(LedgerContract):
    @pytest.fixture
    def start(self, milvus_url: Urls, tmp_path: Path) -> Iterator[str]:
        from milvus_lite.adapter.grpc.server import start_server_in_thread

        server, database, port = start_server_in_thread(str(tmp_path / "lite"), max_workers=4)
        yield f"milvus+http://127.0.0.1:{port}"
        server.stop(grace=0).wait()
        database.close()


class TestLedgersOfAServer(LedgerContract):
    @pytest.fixture
    def start(self, old_milvus_server: int) -> str:
        return f"milvus+http://root:Milvus@127.0.0.1:{old_milvus_server}"


class TestLedgers:
    def test_a_server_that_makes_nothing_is_told(
        self, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wire = wire_of(engine)

        def fail(act: Any) -> Any:
            raise RemoteError("disk full")

        ledgers = Ledgers(wire, "nothing")
        ask = wire.ask
        monkeypatch.setattr(wire, "once", fail)
        monkeypatch.setattr(wire, "ask", lambda act: [] if ask else None)
        with pytest.raises(RemoteError, match="disk full"):
            ledgers.put(LEDGER, None)

    def test_a_ledger_that_is_gone_before_it_was_read_is_looked_for_again(
        self, engine: Engine, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ledgers = Ledgers(wire_of(engine), Address.parse(url).copy)
        assert ledgers.put(LEDGER, None)
        numbers, seen = ledgers._numbers, count()
        monkeypatch.setattr(
            ledgers, "_numbers", lambda: numbers() + ([99] if next(seen) < 2 else [])
        )
        found = ledgers.newest()
        assert found is not None
        assert found.version[0] == 1

    def test_what_is_no_ledger_is_damage(self, engine: Engine, url: str) -> None:
        ledgers = Ledgers(wire_of(engine), Address.parse(url).copy)
        assert ledgers.put(LEDGER, None)
        kept = ledgers.newest()
        assert kept is not None
        ledgers.newest = lambda: Kept("rubbish", kept.version)  # type: ignore[method-assign]
        engine._shelves._ledgers = ledgers  # type: ignore[attr-defined]
        with pytest.raises(DamagedError, match="holds no ledger that can be understood"):
            engine.state()


@contextmanager
def speaking(**methods: Any) -> Iterator[int]:
    """The port of a server that takes every caller and knows a few calls."""

    def connect(request: Any, context: Any) -> Any:
        return milvus_pb2.ConnectResponse(status=common_pb2.Status(), identifier=1)

    servicer = milvus_pb2_grpc.MilvusServiceServicer()
    for name, answer in ({"Connect": connect} | methods).items():
        setattr(servicer, name, answer)
    server = grpc.server(futures.ThreadPoolExecutor(2))
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(grace=0).wait()


def failing(status: grpc.StatusCode, told: str, attempts: Iterator[int] | None = None) -> Any:
    def answer(request: Any, context: Any) -> Any:
        next(attempts or count())
        context.abort(status, told)

    return answer


class TestFailures:
    def test_a_server_that_is_down(self) -> None:
        engine = open_engine("milvus+http://127.0.0.1:1", limits=QUICK)
        with pytest.raises(UnavailableError, match=r"^milvus.*:1 cannot be reached: ") as error:
            engine.state()
        assert error.value.hint == "look at the address, and whether the server is running"
        engine.close()

    def test_a_server_that_says_nothing(self, mute: int) -> None:
        engine = open_engine(f"milvus+http://127.0.0.1:{mute}", limits=QUICK)
        with pytest.raises(RemoteError) as error:
            engine.state()
        assert f"milvus+http://127.0.0.1:{mute} " in error.value.message

    def test_a_call_that_is_not_answered_in_time(self) -> None:
        ended = threading.Event()

        def wait(request: Any, context: Any) -> Any:
            ended.wait(30)

        with speaking(ShowCollections=wait) as port:
            engine = open_engine(f"milvus+http://127.0.0.1:{port}", limits=QUICK)
            with pytest.raises(RemoteError, match="did not answer in time") as error:
                engine.state()
            ended.set()
        assert not isinstance(error.value, UnavailableError)

    @pytest.mark.parametrize(
        "status", [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED]
    )
    def test_a_wrong_key(self, status: grpc.StatusCode, capfd: pytest.CaptureFixture[str]) -> None:
        with speaking(Connect=failing(status, f"not {CANARY}")) as port:
            engine = open_engine(f"milvus+http://:{CANARY}@127.0.0.1:{port}", limits=QUICK)
            with pytest.raises(RemoteError) as error:
                engine.state()
        assert error.value.message == (
            f"milvus+http://127.0.0.1:{port} does not accept the user, the password or the key: "
            "not [password]"
        )
        assert CANARY not in repr(error.value) + json.dumps(error.value.to_dict())
        assert error.value.__cause__ is None
        assert "Traceback" not in capfd.readouterr().err

    def test_what_the_user_may_not_do(self) -> None:
        status = common_pb2.Status(code=1401, reason="privilege not permitted")
        answer = milvus_pb2.ShowCollectionsResponse(status=status)
        with speaking(ShowCollections=lambda *_: answer) as port:
            engine = open_engine(f"milvus+http://a:b@127.0.0.1:{port}", limits=QUICK)
            with pytest.raises(RemoteError, match=r"does not accept the user, .*not permitted$"):
                engine.state()

    def test_what_may_pass_is_asked_again(self, capfd: pytest.CaptureFixture[str]) -> None:
        attempts = count()
        busy = failing(grpc.StatusCode.UNAVAILABLE, "starting", attempts)
        with speaking(ShowCollections=busy) as port:
            engine = open_engine(f"milvus+http://127.0.0.1:{port}", limits=QUICK)
            with pytest.raises(UnavailableError, match=r"cannot be reached: .*starting"):
                engine.state()
        assert next(attempts) == QUICK.attempts
        assert "Traceback" not in capfd.readouterr().err

    @pytest.mark.parametrize(("code", "asked_for"), [(8, QUICK.attempts), (65535, 1)])
    def test_what_the_server_refuses(self, code: int, asked_for: int) -> None:
        attempts = count()

        def refuse(request: Any, context: Any) -> Any:
            next(attempts)
            status = common_pb2.Status(code=code, reason="no more today")
            return milvus_pb2.ShowCollectionsResponse(status=status)

        with speaking(ShowCollections=refuse) as port:
            engine = open_engine(f"milvus+http://127.0.0.1:{port}", limits=QUICK)
            with pytest.raises(RemoteError) as error:
                engine.state()
        assert error.value.message == (
            f"milvus+http://127.0.0.1:{port} refused with code {code}: no more today"
        )
        assert isinstance(error.value, UnavailableError) == (asked_for > 1)
        assert next(attempts) == asked_for

    def test_a_server_of_something_else(self) -> None:
        with serving("", elastic=False, hook=answering(200, b"<html>hello</html>")) as port:
            engine = open_engine(f"milvus+http://127.0.0.1:{port}", limits=QUICK)
            with pytest.raises(RemoteError, match=r"cannot be reached|makes no sense"):
                engine.state()

    def test_a_server_that_knows_no_such_call(self) -> None:
        with speaking() as port:
            engine = open_engine(f"milvus+http://127.0.0.1:{port}", limits=QUICK)
            with pytest.raises(RemoteError, match="answers what makes no sense"):
                engine.state()

    @pytest.mark.parametrize("version", ["v2.3.5-lite", "2.4.23", "milvus 1.10"])
    def test_a_server_that_is_too_old(self, store: Store, version: str) -> None:
        def answer(request: Any, context: Any) -> Any:
            return milvus_pb2.GetVersionResponse(status=common_pb2.Status(), version=version)

        none = milvus_pb2.ShowCollectionsResponse(status=common_pb2.Status())
        with speaking(GetVersion=answer, ShowCollections=lambda *_: none) as port:
            engine = open_engine(f"milvus+http://127.0.0.1:{port}", limits=QUICK)
            with pytest.raises(RemoteError) as error:
                publish(store, engine)
        assert error.value.message.endswith(f"is Milvus {version}, at least 2.5 is needed")
        assert error.value.hint == "upgrade the server"

    def test_plain_http_to_another_machine_is_refused(self) -> None:
        with pytest.raises(UsageError, match=r"^plain http to vectors\.example would send"):
            open_engine("milvus+http://vectors.example")

    def test_a_certificate_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError) as error:
            open_engine(f"milvus+https://vectors.example?ca={tmp_path}/ca.pem")
        assert error.value.message == f"the certificate at {tmp_path}/ca.pem is not there"

    def test_missing_packages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pymilvus", None)
        with pytest.raises(DependencyError) as error:
            open_engine("milvus+http://127.0.0.1")
        assert error.value.hint == "pip install 'consilience[milvus]'"


class TestOldServer:
    """A real server, though one that is too old."""

    def test_it_is_refused(self, store: Store, old_milvus_server: int) -> None:
        engine = open_engine(f"milvus+http://root:Milvus@127.0.0.1:{old_milvus_server}")
        assert engine.state() is None
        with pytest.raises(RemoteError, match=r"is Milvus v2\.3\.5-lite, at least 2\.5 is needed"):
            publish(store, engine)
        engine.close()

    @pytest.mark.parametrize("who", ["", "root:wrong@", "nobody:Milvus@"])
    def test_a_wrong_password(self, old_milvus_server: int, who: str) -> None:
        engine = open_engine(f"milvus+http://{who}127.0.0.1:{old_milvus_server}")
        with pytest.raises(RemoteError, match="does not accept the user, the password or the key"):
            engine.state()
        engine.close()
