"""What Qdrant must do beyond the contract: our BM25 as an inner product, and clear failures.

The client's local mode stands for a server where answers matter; over HTTP only what does not need
one is tested.
"""

import json
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from consilience.documents import Document
from consilience.errors import BusyError, DamagedError, DependencyError, RemoteError, UsageError
from consilience.retrieval import Tuning
from consilience.retrieval.engines import Limits, Publisher, open_engine
from consilience.retrieval.engines.base import Engine, UnavailableError
from consilience.store import Store
from tests.retrieval.corpus import QUESTIONS, fill
from tests.retrieval.engines.acting import RunsContract, publish, rankings_as_bm25s, search
from tests.retrieval.engines.test_elastic import answering
from tests.searchserver import Handler, serving
from tests.servers import Urls

QUICK = Limits(connect=1, search=1, publish=2, attempts=3, pause=0.01)
CANARY = "c4n4ry-key"


@pytest.fixture
def url(qdrant_url: Urls) -> str:
    return qdrant_url()


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    opened = open_engine(url)
    yield opened
    opened.close()


def collections(engine: Engine) -> dict[str, int]:
    """How many points there are, by the name of the collection without the copy's."""

    def count_all(client):  # type: ignore[no-untyped-def]
        names = [one.name for one in client.get_collections().collections]
        return {name.partition("-")[2]: client.count(name).count for name in names}

    found: dict[str, int] = engine._shelves._wire.ask(count_all)  # type: ignore[attr-defined]
    return found


class TestBm25:
    @pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (0.6, 0.4), (2.0, 1.0)])
    def test_scores_are_those_of_an_independent_implementation(
        self, store: Store, engine: Engine, k1: float, b: float
    ) -> None:
        assert len(rankings_as_bm25s(store, engine, k1=k1, b=b)) == len(QUESTIONS)

    def test_words_of_the_title_count_as_often_as_the_tuning_says(
        self, store: Store, engine: Engine
    ) -> None:
        store.add(Document("A leaflet.", source="title", title="Leave"))
        store.add(Document("Leave and leave and leave.", source="text"))
        for title, found in ((0.0, ["text"]), (0.5, ["text", "title"]), (20.0, ["title", "text"])):
            Tuning(title=title, b=0.0).keep(store)
            publish(store, engine)
            assert search(engine, "leave") == found


class TestShelves(RunsContract):
    def test_what_nobody_sees_is_swept(self, store: Store, engine: Engine) -> None:
        fill(store)
        publish(store, engine)
        publish(store, engine, replace=True)
        store.remove("leave")
        store.add(Document("New.", source="new"))
        publish(store, engine)
        assert sorted(collections(engine).values()) == [1, 11]  # the ledger; entries, the average

    def test_of_two_that_publish_first_one_comes_second(self, store: Store, engine: Engine) -> None:
        fill(store, "loans")
        states = []

        def overtake(done: int, total: int) -> None:
            if not states:
                publish(store, engine)
                states.append(engine.state())

        # What the one that comes second has written is swept while it writes.
        assert Publisher(store, engine, heard=overtake).catch_up().passages == 1
        assert engine.state() == states[0]
        assert search(engine, "interest on loans") == ["loans"]

    def test_a_copy_that_is_opened_again_is_there(
        self, store: Store, engine: Engine, url: str
    ) -> None:
        fill(store)
        publish(store, engine)
        engine.close()
        again = open_engine(url)
        assert search(again, "annual leave")[0] == "leave"
        again.close()

    def test_entries_that_are_gone_are_told(self, store: Store, engine: Engine) -> None:
        fill(store, "leave")
        publish(store, engine)
        (shelf,) = collections(engine).keys() - {"ledger"}
        engine._shelves.drop(shelf)  # type: ignore[attr-defined]
        fill(store, "loans")
        for act in (lambda: search(engine, "leave"), lambda: publish(store, engine)):
            with pytest.raises(DamagedError, match="are gone, though its ledger is there"):
                act()
        publish(store, engine, replace=True)
        assert search(engine, "annual leave") == ["leave"]


class TestFailures:
    def test_a_folder_that_is_open_elsewhere(self, engine: Engine, url: str) -> None:
        with pytest.raises(BusyError) as error:
            open_engine(url)
        assert error.value.message == f"another process has {url} open"

    def test_a_server_that_is_down(self) -> None:
        engine = open_engine("qdrant+http://127.0.0.1:1", limits=QUICK)
        with pytest.raises(UnavailableError, match=r"^qdrant.*:1 cannot be reached: "):
            engine.state()

    def test_a_server_that_says_nothing(self, mute: int) -> None:
        engine = open_engine(f"qdrant+http://127.0.0.1:{mute}", limits=QUICK)
        with pytest.raises(RemoteError, match="did not answer in time") as error:
            engine.state()
        assert not isinstance(error.value, UnavailableError)

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_wrong_key(self, status: int) -> None:
        seen = []

        def hook(handler: Handler) -> bool:
            seen.append(handler.headers.get("api-key"))
            return answering(status, {"status": {"error": f"not {CANARY}"}})(handler)

        with serving("", elastic=False, hook=hook) as port:
            engine = open_engine(f"qdrant+http://:{CANARY}@127.0.0.1:{port}", limits=QUICK)
            with pytest.raises(RemoteError) as error:
                engine.state()
        assert seen == [CANARY]
        assert "does not accept the key" in error.value.message
        assert CANARY not in repr(error.value) + json.dumps(error.value.to_dict())
        assert error.value.__cause__ is None

    @pytest.mark.parametrize("status", [429, 503])
    def test_what_may_pass_is_asked_again(self, status: int) -> None:
        attempts = count()

        def hook(handler: Handler) -> bool:
            next(attempts)
            return answering(status, {"status": {"error": "busy"}})(handler)

        with serving("", elastic=False, hook=hook) as port:
            engine = open_engine(f"qdrant+http://127.0.0.1:{port}", limits=QUICK)
            with pytest.raises(UnavailableError):
                engine.state()
        assert next(attempts) == QUICK.attempts

    @pytest.mark.parametrize("body", [b"<html>hello</html>", b"[1, 2]"])
    def test_a_server_of_something_else(self, body: bytes) -> None:
        with serving("", elastic=False, hook=answering(200, body)) as port:
            engine = open_engine(f"qdrant+http://127.0.0.1:{port}", limits=QUICK)
            with pytest.raises(RemoteError, match="answers what makes no sense"):
                engine.state()

    def test_a_server_that_is_too_old(self, store: Store) -> None:
        def hook(handler: Handler) -> bool:
            banner = {"title": "qdrant", "version": "1.12.4"}
            found = handler.path == "/"
            return answering(200 if found else 404, banner if found else {})(handler)

        with serving("", elastic=False, hook=hook) as port:
            engine = open_engine(f"qdrant+http://127.0.0.1:{port}")
            with pytest.raises(RemoteError) as error:
                publish(store, engine)
        assert error.value.message.endswith("is Qdrant 1.12.4, at least 1.17 is needed")

    def test_a_server_behind_a_path_is_asked_there(self) -> None:
        seen: list[str] = []

        def hook(handler: Handler) -> bool:
            seen.append(handler.path.partition("?")[0])
            return answering(404, {"status": {"error": "not found"}})(handler)

        with serving("", elastic=False, hook=hook) as port:
            assert open_engine(f"qdrant+http://127.0.0.1:{port}/a?copy=c").state() is None
        assert seen == ["/a/collections/c-ledger/points"]

    def test_plain_http_to_another_machine_is_refused(self) -> None:
        with pytest.raises(UsageError, match=r"^plain http to vectors\.example would send"):
            open_engine("qdrant+http://vectors.example")

    def test_missing_packages(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "qdrant_client", None)
        with pytest.raises(DependencyError) as error:
            open_engine(f"qdrant+local:{tmp_path}")
        assert error.value.hint == "pip install 'consilience[qdrant]'"
