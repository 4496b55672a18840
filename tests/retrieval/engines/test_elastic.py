"""What the search servers must do beyond the contract, and what they are asked word for word."""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import count
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest

from consilience.documents import Document
from consilience.errors import DamagedError, DependencyError, RemoteError, UsageError
from consilience.retrieval import Tuning
from consilience.retrieval.engines import Limits, Publisher, open_engine
from consilience.retrieval.engines import runs as runs_module
from consilience.retrieval.engines.base import Engine, MovedError, Published, UnavailableError
from consilience.retrieval.engines.elastic.dialects import DIALECTS
from consilience.retrieval.engines.elastic.reading import product_of
from consilience.retrieval.engines.runs import Ledger
from consilience.retrieval.ranking import EVERYTHING, Scope
from consilience.store import Store, Where
from tests.retrieval.corpus import fill
from tests.retrieval.engines.acting import RunsContract, publish, search
from tests.searchserver import Handler, serving
from tests.servers import SEARCH_SERVERS

QUICK = Limits(connect=1, search=0.5, publish=2, attempts=3, pause=0.01)
CANARY = "c4n4ry-password"


@pytest.fixture(params=SEARCH_SERVERS)
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param)())


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    opened = open_engine(url)
    yield opened
    opened.close()


def looked(url: str, path: str) -> Any:
    """What the server itself says; `{}` is the copy."""
    place, _, copy = url.partition("?copy=")
    with urlopen(f"http{place.partition('+http')[2]}{path.replace('{}', copy)}") as answer:
        return json.load(answer)


def indices(url: str) -> set[str]:
    copy = url.partition("?copy=")[2]
    return {name.removeprefix(copy) for name in looked(url, "/{}-*/_settings")}


class TestShelves(RunsContract):
    @pytest.fixture
    def other(self, url: str) -> Iterator[Engine]:
        """A second way to the same server."""
        opened = open_engine(url)
        yield opened
        opened.close()

    def test_a_tuning_that_shapes_the_index_makes_it_anew(
        self, store: Store, engine: Engine
    ) -> None:
        fill(store)
        publish(store, engine)
        for tuning, added in (
            (Tuning(k1=1.5), 10),
            (Tuning(k1=1.5, en=0.5), 0),
            (Tuning(k1=1.5, title=2.0), 10),
            (Tuning(k1=1.5, title=2.2), 0),
        ):
            tuning.keep(store)
            assert publish(store, engine).added == added, tuning
            assert search(engine, "annual leave")[0] == "leave"

    def test_the_index_is_made_with_k1_and_b(self, store: Store, engine: Engine, url: str) -> None:
        fill(store)
        Tuning(k1=1.3, b=0.2).keep(store)
        publish(store, engine)
        settings = [each["settings"]["index"] for each in looked(url, "/{}-*/_settings").values()]
        (ours,) = [each["similarity"]["ours"] for each in settings if "similarity" in each]
        assert (ours["type"], float(ours["k1"]), float(ours["b"])) == ("BM25", 1.3, 0.2)

    def test_words_of_the_title_are_repeated_as_often_as_they_count(
        self, store: Store, engine: Engine, url: str
    ) -> None:
        store.add(Document("A leaflet of words.", source="title", title="Leave"))
        for title, tokens in ((0.0, "leaflet word"), (2.6, "leav leav leav leaflet word")):
            Tuning(title=title).keep(store)
            publish(store, engine)
            found = looked(url, "/{}-*/_search?q=number:1")["hits"]["hits"]
            assert [hit["_source"]["tokens"] for hit in found] == [tokens]

    def test_what_nobody_sees_is_swept(self, store: Store, engine: Engine, url: str) -> None:
        fill(store)
        publish(store, engine)
        publish(store, engine, replace=True)
        assert len(indices(url)) == 2  # the shelf and the ledger
        store.remove("leave")
        fill(store, "visits")
        store.add(Document("New.", source="new"))
        publish(store, engine)
        (shelf,) = indices(url) - {"-ledger"}
        assert looked(url, f"/{{}}{shelf}/_count")["count"] == 10

    def test_what_a_publisher_that_failed_left_behind_is_not_seen_and_swept(
        self, store: Store, engine: Engine, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fill(store, "loans")
        publish(store, engine)
        fill(store, "leave")
        shelves = engine._shelves  # type: ignore[attr-defined]
        with monkeypatch.context() as patch:
            patch.setattr(shelves, "replace", lambda ledger, kept: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                publish(store, engine)
        (shelf,) = indices(url) - {"-ledger"}
        assert looked(url, f"/{{}}{shelf}/_count")["count"] == 2
        assert search(engine, "annual leave") == []
        fill(store, "visits")
        assert publish(store, engine).added == 2
        assert looked(url, f"/{{}}{shelf}/_count")["count"] == 3
        assert search(engine, "annual leave") == ["leave"]

    def test_of_two_that_publish_first_one_comes_second(
        self, store: Store, engine: Engine, url: str
    ) -> None:
        fill(store, "loans")
        other, states = open_engine(url), []

        def overtake(done: int, total: int) -> None:
            if not states:
                publish(store, other)
                states.append(other.state())

        report = Publisher(store, engine, heard=overtake).catch_up()
        assert (report.added, report.passages) == (0, 1)  # the second time nothing was left to do
        assert engine.state() == states[0]
        assert len(indices(url)) == 2
        fill(store, "leave")
        publish(store, engine)
        assert len(indices(url)) == 2
        other.close()

    def test_a_reader_that_was_overtaken_reads_again(
        self, store: Store, engine: Engine, url: str
    ) -> None:
        fill(store, "leave")
        publish(store, engine)
        other, seen = open_engine(url), []

        def ask(view: Any) -> int:
            seen.append(view.state.sequence)
            if len(seen) == 1:
                fill(store, "loans")
                publish(store, other, replace=True)
            return len(view.passages([1, 2]))

        assert engine.read(ask) == 2
        assert len(seen) == 2
        assert seen[0] < seen[1]
        other.close()

    def test_after_many_changes_it_is_made_anew(
        self, store: Store, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runs_module, "MOST_RUNS", 2)
        fill(store, "leave")
        steps, added = [], []
        for name in ("loans", "visits", "parking", "library"):
            added.append(publish(store, engine).added)
            state = engine.state()
            assert state is not None
            steps.append(state.steps)
            fill(store, name)
        assert (steps, added) == ([0, 1, 2, 0], [1, 1, 1, 4])

    def test_entries_that_are_gone_are_told(self, store: Store, engine: Engine, url: str) -> None:
        fill(store, "leave")
        publish(store, engine)
        (shelf,) = indices(url) - {"-ledger"}
        wire = engine._shelves._wire  # type: ignore[attr-defined]
        wire.ask("DELETE", f"/{url.partition('?copy=')[2]}{shelf}")
        fill(store, "loans")
        for act in (lambda: search(engine, "leave"), lambda: publish(store, engine)):
            with pytest.raises(DamagedError) as error:
                act()
            assert error.value.message == (
                f"the entries of the copy in {url} are gone, though its ledger is there"
            )
            assert error.value.hint == f"consilience publish '{url}' --replace"
        publish(store, engine, replace=True)
        assert search(engine, "annual leave") == ["leave"]

    @pytest.mark.parametrize(
        "kept", ["no json", "[]", '{"published": {}, "shelf": "a", "runs": [], "turn": 1}']
    )
    def test_a_ledger_that_is_none_is_refused_and_replaced(
        self, store: Store, engine: Engine, url: str, kept: str
    ) -> None:
        fill(store, "leave")
        publish(store, engine)
        wire = engine._shelves._wire  # type: ignore[attr-defined]
        copy = url.partition("?copy=")[2]
        wire.ask("PUT", f"/{copy}-ledger/_doc/ledger", {"ledger": kept})
        for act in (lambda: search(engine, "leave"), lambda: publish(store, engine)):
            with pytest.raises(DamagedError, match="that can be understood"):
                act()
        publish(store, engine, replace=True)
        assert search(engine, "annual leave") == ["leave"]


def test_scores_become_inner_products_again() -> None:
    for product in (-3.0, -0.5, 0.0, 0.25, 1.0, 40.0):
        score = 1 + product if product >= 0 else 1 / (1 - product)
        assert product_of(score) == pytest.approx(product)


def answering(status: int, body: Any, **headers: str) -> Callable[[Handler], bool]:
    """A hook that answers everything in one way."""

    def hook(handler: Handler) -> bool:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            handler.send_header(name, value)
        handler.send_header("X-Elastic-Product", "Elasticsearch")
        handler.send_header("Content-Length", str(len(raw)))
        handler.end_headers()
        handler.wfile.write(raw)
        return True

    return hook


@pytest.fixture(params=["elasticsearch", "opensearch"])
def scheme(request: pytest.FixtureRequest) -> str:
    return f"{request.param}+http"


class TestFailures:
    def test_a_server_that_is_down(self, scheme: str, mute: int) -> None:
        engine = open_engine(f"{scheme}://127.0.0.1:1", limits=QUICK)
        with pytest.raises(UnavailableError) as error:
            engine.state()
        assert error.value.message.startswith(f"{scheme}://127.0.0.1:1 cannot be reached: ")

    def test_a_server_that_says_nothing(self, scheme: str, mute: int) -> None:
        engine = open_engine(f"{scheme}://127.0.0.1:{mute}", limits=QUICK)
        with pytest.raises(RemoteError, match="did not answer in time") as error:
            engine.state()
        assert not isinstance(error.value, UnavailableError)

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_wrong_password(self, scheme: str, status: int) -> None:
        told = {"error": {"type": "security_exception", "reason": f"no {CANARY}"}, "status": status}
        with serving("", elastic=True, hook=answering(status, told)) as port:
            engine = open_engine(f"{scheme}://user:{CANARY}@127.0.0.1:{port}", limits=QUICK)
            with pytest.raises(RemoteError) as error:
                engine.state()
        assert error.value.message == (
            f"{scheme}://user@127.0.0.1:{port} does not accept the user, the password or the key: "
            "security_exception: no [password]"
        )
        assert error.value.status == status
        assert CANARY not in repr(error.value) + repr(error.value.__cause__)
        assert error.value.__cause__ is None

    @pytest.mark.parametrize("status", [429, 502, 503, 504])
    def test_what_may_pass_is_asked_again(self, scheme: str, status: int) -> None:
        attempts = count(1)

        def hook(handler: Handler) -> bool:
            next(attempts)
            return answering(status, {"error": "busy"})(handler)

        with serving("", elastic=True, hook=hook) as port:
            engine = open_engine(f"{scheme}://127.0.0.1:{port}", limits=QUICK)
            with pytest.raises(UnavailableError, match=f"refused with status {status}: busy"):
                engine.state()
        assert next(attempts) == 1 + QUICK.attempts

    def test_what_passes_is_answered(self, scheme: str, search_servers: dict[str, int]) -> None:
        attempts = count(1)

        def hook(handler: Handler) -> bool:
            return next(attempts) < 3 and answering(503, {"error": "busy"})(handler)

        upstream = f"http://127.0.0.1:{search_servers['opensearch']}"
        with serving(upstream, elastic=scheme.startswith("elastic"), hook=hook) as port:
            engine = open_engine(f"{scheme}://127.0.0.1:{port}?copy=nothing", limits=QUICK)
            assert engine.state() is None
        assert next(attempts) == 4

    @pytest.mark.parametrize("status", [400, 500])
    def test_what_is_refused_is_not_asked_again(self, scheme: str, status: int) -> None:
        attempts = count(1)
        told = {"error": {"type": "x_exception", "reason": "too bad"}}

        def hook(handler: Handler) -> bool:
            next(attempts)
            return answering(status, told)(handler)

        with serving("", elastic=True, hook=hook) as port:
            engine = open_engine(f"{scheme}://127.0.0.1:{port}", limits=QUICK)
            with pytest.raises(RemoteError) as error:
                engine.state()
        assert error.value.message.endswith(f"refused with status {status}: x_exception: too bad")
        assert next(attempts) == 2

    @pytest.mark.parametrize("body", [b"<html>hello</html>", b"[1, 2]", b"\xff\xfe"])
    def test_a_server_of_something_else(self, scheme: str, body: bytes) -> None:
        with serving("", elastic=True, hook=answering(200, body)) as port:
            engine = open_engine(f"{scheme}://127.0.0.1:{port}", limits=QUICK)
            with pytest.raises(RemoteError):
                engine.state()

    def test_a_server_of_the_other_name(self, store: Store, search_servers: dict[str, int]) -> None:
        for ours, theirs in (("elasticsearch", "opensearch"), ("opensearch", "elasticsearch")):
            engine = open_engine(f"{ours}+http://127.0.0.1:{search_servers[theirs]}?copy=other")
            # The client of Elasticsearch itself refuses to speak to anything else.
            with pytest.raises((UsageError, RemoteError)) as error:
                publish(store, engine)
            assert theirs in str(error.value) or "not Elasticsearch" in str(error.value)

    def test_a_server_that_is_too_old(self, store: Store) -> None:
        def hook(handler: Handler) -> bool:
            if handler.path == "/":
                return answering(
                    200, {"version": {"distribution": "opensearch", "number": "2.4.1"}}
                )(handler)
            return answering(404, {"found": False})(handler)

        with serving("", elastic=False, hook=hook) as port:
            engine = open_engine(f"opensearch+http://127.0.0.1:{port}")
            with pytest.raises(RemoteError) as error:
                publish(store, engine)
        assert error.value.message.endswith("is opensearch 2.4.1, at least 2.13 is needed")

    def test_one_entry_that_is_refused_stops_publishing(
        self, store: Store, scheme: str, search_servers: dict[str, int]
    ) -> None:
        reason = {"type": "mapper_parsing_exception", "reason": "no room"}
        items = [{"index": {"status": 201}}, {"index": {"status": 400, "error": reason}}]

        def hook(handler: Handler) -> bool:
            if "_bulk" not in handler.path:
                return False
            return answering(200, {"errors": True, "items": items})(handler)

        fill(store, "leave")
        name = scheme.partition("+")[0]
        upstream = f"http://127.0.0.1:{search_servers[name]}"
        with serving(upstream, elastic=name == "elasticsearch", hook=hook) as port:
            engine = open_engine(f"{scheme}://127.0.0.1:{port}?copy=refusing")
            with pytest.raises(RemoteError, match="mapper_parsing_exception: no room"):
                publish(store, engine)
            assert engine.state() is None

    def test_an_entry_that_is_gone_already_stops_nothing(
        self, store: Store, scheme: str, search_servers: dict[str, int]
    ) -> None:
        reason = {"type": "document_missing_exception", "reason": "not there"}
        items = [{"update": {"status": 404, "error": reason}}]
        swept: list[bool] = []  # by someone who has published since

        def hook(handler: Handler) -> bool:
            if "_bulk" not in handler.path or not swept:
                return False
            return answering(200, {"errors": True, "items": items})(handler)

        fill(store, "leave", "loans")
        name = scheme.partition("+")[0]
        upstream = f"http://127.0.0.1:{search_servers[name]}"
        with serving(upstream, elastic=name == "elasticsearch", hook=hook) as port:
            engine = open_engine(f"{scheme}://127.0.0.1:{port}?copy=swept_{name}")
            publish(store, engine)
            store.remove("leave")
            swept.append(True)
            assert publish(store, engine).removed == 1

    def test_user_and_password_or_key_are_sent(self, scheme: str) -> None:
        seen: list[str] = []

        def hook(handler: Handler) -> bool:
            seen.append(handler.headers.get("Authorization", ""))
            return answering(404, {"found": False})(handler)

        with serving("", elastic=True, hook=hook) as port:
            for user in ("user:p%40ss", ":key"):
                assert open_engine(f"{scheme}://{user}@127.0.0.1:{port}").state() is None
        assert seen == ["Basic dXNlcjpwQHNz", "ApiKey key"]

    def test_a_server_behind_a_path_is_asked_there(self, scheme: str) -> None:
        seen: list[str] = []

        def hook(handler: Handler) -> bool:
            seen.append(handler.path.partition("?")[0])
            return answering(404, {"found": False})(handler)

        with serving("", elastic=True, hook=hook) as port:
            assert open_engine(f"{scheme}://127.0.0.1:{port}/a/b?copy=c").state() is None
        assert seen == ["/a/b/c-ledger/_doc/ledger"]

    def test_plain_http_to_another_machine_is_refused(self, scheme: str) -> None:
        with pytest.raises(UsageError, match=r"^plain http to es\.example would send passages"):
            open_engine(f"{scheme}://es.example")

    def test_missing_packages(self, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
        name = scheme.partition("+")[0]
        module = {"elasticsearch": "elasticsearch", "opensearch": "opensearchpy"}[name]
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(DependencyError) as error:
            open_engine(f"{scheme}://localhost")
        assert error.value.hint == f"pip install 'consilience[{name}]'"


LEDGER = Ledger(
    Published("store", 7, "encoder", 2, 5, 0, "tokens 1, k1 0.6, b 0.4, title 1"),
    "s1",
    ("r1", "r2"),
    3,
)
FILTER = {
    "bool": {
        "filter": [
            {"terms": {"run": ["r1", "r2"]}},
            {"terms": {"readers": ["*", "=staff"]}},
            {"terms": {"facts": ["language=en"]}},
        ],
        "must_not": [{"range": {"died": {"lte": 7}}}],
    }
}
ASIDE = {
    "size": 3,
    "_source": ["number"],
    "sort": [{"_score": "desc"}, {"number": "asc"}],
    "track_total_hits": False,
}
KNN = {
    "elasticsearch": {
        "knn": {
            "field": "vector",
            "query_vector": [0.5, -0.25],
            "k": 3,
            "num_candidates": 200,
            "filter": FILTER,
        },
        **ASIDE,
    },
    "opensearch": {
        "query": {"knn": {"vector": {"vector": [0.5, -0.25], "k": 3, "filter": FILTER}}},
        **ASIDE,
    },
}
HITS = {
    "hits": {
        "hits": [
            {"_source": {"number": 4}, "_score": 1.25},
            {"_source": {"number": 9}, "_score": 1.25},
            {"_source": {"number": 2}, "_score": 0.8},
        ]
    }
}


class TestExchanges:
    """Requests compared word for word, with answers written by hand after the servers' manuals."""

    def test_the_nearest_vectors(self, scheme: str) -> None:
        name = scheme.partition("+")[0]
        with replaying(("POST", "/c1-s1/_search", KNN[name], HITS)) as port:
            scope = Scope(frozenset({"staff"}), Where(languages=("en",)))
            view = _view(scheme, port)
            vector = np.array([0.5, -0.25], np.float32)
            assert view.rank_dense(vector, depth=3, scope=scope) == [
                (4, 0.25),
                (9, 0.25),
                (2, pytest.approx(-0.25)),
            ]

    def test_the_best_by_words(self, scheme: str) -> None:
        query = {"bool": {**FILTER["bool"], "minimum_should_match": 1}}
        query["bool"]["should"] = [
            {"term": {"tokens": {"value": "leav", "boost": 2.0}}},
            {"term": {"tokens": {"value": "年假", "boost": 1.0}}},
        ]
        with replaying(("POST", "/c1-s1/_search", {"query": query, **ASIDE}, HITS)) as port:
            scope = Scope(frozenset({"staff"}), Where(languages=("en",)))
            ranking = _view(scheme, port).rank_lexical({"leav": 2, "年假": 1}, depth=3, scope=scope)
        assert ranking == [(4, 1.25), (9, 1.25), (2, 0.8)]

    def test_a_shelf_that_is_gone(self, scheme: str) -> None:
        with replaying() as port, pytest.raises(MovedError):
            _view(scheme, port).rank_lexical({"leav": 1}, depth=3, scope=EVERYTHING)

    def test_the_fields_of_vectors(self) -> None:
        assert DIALECTS["elasticsearch"].mapping(384) == {
            "type": "dense_vector",
            "dims": 384,
            "index": True,
            "similarity": "max_inner_product",
            "index_options": {"type": "hnsw"},
        }
        assert DIALECTS["opensearch"].mapping(384) == {
            "type": "knn_vector",
            "dimension": 384,
            "method": {"name": "hnsw", "engine": "faiss", "space_type": "innerproduct"},
        }
        assert DIALECTS["opensearch"].settings == {"knn": True}


def _view(scheme: str, port: int) -> Any:
    engine = open_engine(f"{scheme}://127.0.0.1:{port}?copy=c1")
    return engine._shelves.view(LEDGER)  # type: ignore[attr-defined]


@contextmanager
def replaying(*exchanges: tuple[str, str, Any, Any]) -> Iterator[int]:
    """The port of a server that answers what was recorded, and 404 to anything else."""

    class Replaying(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found = [
                answer
                for method, path, body, answer in exchanges
                if (method, path, body) == (self.command, self.path.partition("?")[0], asked)
            ]
            raw = json.dumps(found[0] if found else {"error": "no such index"}).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("X-Elastic-Product", "Elasticsearch")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Replaying)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()
