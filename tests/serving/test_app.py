import json
import threading
from pathlib import Path
from typing import Any, get_args

import pytest

from consilience import Rag
from consilience.cli.search import as_document
from consilience.documents import Document
from consilience.model.asking import LONGEST_QUESTION
from consilience.model.fusion import FUSIONS
from consilience.retrieval import Mode
from consilience.serving.access import OWNER
from consilience.serving.answers import hit_document
from consilience.serving.app import WEB
from consilience.serving.journal import LOG
from consilience.serving.requests import FusionName, ModeName
from consilience.serving.service import Service
from consilience.store import Store
from tests.serving.small import CHINESE, HIDDEN, OPEN, bearer, client_of, events_of

HIT = {"id", "score", "title", "source", "page", "start", "end", "text"}


def test_health_tells_the_owner_the_counts(service: Service) -> None:
    client, _ = client_of(service)
    service._ready.set()
    assert client.get("/v1/health").json() == {
        "status": "ok",
        "version": "0.1.0",
        "model": service.rag and Path(str(service.config.model)).name,
        "documents": 3,
        "passages": 3,
        "generation": service.store.sequence,
    }


def test_health_says_when_it_is_loading_and_closing(service: Service) -> None:
    client, _ = client_of(service)
    assert client.get("/v1/health").json()["status"] == "loading"
    service.gates.close()
    assert client.get("/v1/health").json()["status"] == "closing"


def test_warming_up_ends_in_readiness(service: Service) -> None:
    service.warm_up()
    assert service._ready.wait(60)
    assert service.state == "ok"


class Failing:
    """Stands for a model whose first search fails when it may."""

    def __init__(self) -> None:
        self.asked, self.may = threading.Event(), threading.Event()
        self.is_narrow = False

    def narrow(self) -> None:
        self.is_narrow = True

    def retriever(self, _: Store) -> Any:
        self.asked.set()
        assert self.may.wait(60)
        raise RuntimeError("Visitors are welcome")


def test_a_warming_up_that_fails_is_a_line_without_what_was_said(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    service.rag = failing = Failing()  # type: ignore[assignment]
    failing.may.set()
    service.warm_up()
    assert service._ready.wait(60)
    LOG.flush()
    (line,) = map(json.loads, capsys.readouterr().err.splitlines())
    assert (line["event"], line["thread"], line["kind"]) == ("mistake", "warm-up", "RuntimeError")
    assert "welcome" not in json.dumps(line)
    assert failing.is_narrow


def test_closing_while_warming_up_waits_for_it_and_says_nothing(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    service.rag = failing = Failing()  # type: ignore[assignment]
    service.warm_up()
    assert failing.asked.wait(60)
    closing = threading.Thread(target=service.close, args=(60,))
    closing.start()
    closing.join(0.3)
    assert closing.is_alive()
    assert len(service.store)
    failing.may.set()
    closing.join(60)
    assert not closing.is_alive()
    LOG.flush()
    assert capsys.readouterr().err == ""


def test_a_search_is_what_the_command_line_prints(service: Service) -> None:
    client, _ = client_of(service)
    found = client.post("/v1/search", json={"question": "年假几天", "k": 2, "mode": "bm25"})
    assert found.status_code == 200
    (hit,) = found.json()["hits"]
    assert hit.keys() == HIT
    assert (hit["source"], hit["text"]) == ("请假.txt", CHINESE)
    assert CHINESE[hit["start"] : hit["end"]] == hit["text"]


def test_a_search_is_confined_as_asked(service: Service) -> None:
    client, _ = client_of(service)

    def sources(**where: str) -> list[str]:
        asked = {"question": "visitors 员工", "mode": "bm25", "where": where}
        return sorted(h["source"] for h in client.post("/v1/search", json=asked).json()["hits"])

    assert sources() == ["safe.txt", "visits.md", "请假.txt"]
    assert sources(contributor="ward") == ["visits.md"]
    assert sources(**{"metadata.vault": "seven"}) == ["safe.txt"]
    assert sources(source="none.txt") == []


def test_what_is_hidden_takes_no_place_of_what_may_be_read(service: Service) -> None:
    kept = [Document(f"{HIDDEN} {n}", f"safe{n}.txt", access=("staff",)) for n in range(5)]
    service.store.add(*kept)
    client, _ = client_of(service, **bearer(service.keys.create("visitor", labels=()).secret))
    asked = {"question": "visitors of the safe heliotrope 员工", "k": 2, "mode": "bm25"}
    hits = client.post("/v1/search", json=asked).json()["hits"]
    assert sorted(hit["source"] for hit in hits) == ["visits.md", "请假.txt"]


def test_a_field_that_is_not_there_is_told(service: Service) -> None:
    client, _ = client_of(service)
    asked = {"question": "visitors", "mode": "bm25", "where": {"colour": "red"}}
    found = client.post("/v1/search", json=asked)
    assert found.status_code == 400
    assert found.json()["error"]["message"] == "there is no field 'colour' to filter by"


def test_an_answer_is_the_one_that_the_model_gives(service: Service) -> None:
    client, _ = client_of(service)
    asked = {"question": "when are visitors welcome", "abstain": False, "explain": True, "k": 2}
    found = client.post("/v1/ask", json=asked).json()
    from consilience.model import AskOptions

    wanted = service.rag.ask(
        asked["question"],  # type: ignore[arg-type]
        service.store,
        AskOptions(abstain=False, k=2),
    ).to_dict(explain=True)
    for name in ("answer", "abstained", "question"):
        assert found[name] == wanted[name]
    assert found["posterior"].keys() == wanted["posterior"].keys()
    assert [hit["id"] for hit in found["hits"]] == list(wanted["posterior"])
    assert isinstance(found["id"], str)
    assert "tokens" in found


def test_an_answer_is_no_longer_than_the_model_can_write(service: Service) -> None:
    client, _ = client_of(service)
    asked = {"question": "Consilience", "abstain": False, "max_new_tokens": 512, "beams": 2}
    assert client.post("/v1/ask", json=asked).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_quotation_stands_in_a_citation(service: Service, *, stream: bool) -> None:
    client, _ = client_of(service)
    asked = {"question": "when are visitors welcome", "abstain": False, "quote": True}
    found = client.post("/v1/ask", json=asked | {"max_new_tokens": 6, "stream": stream})
    answer = events_of(found.text)[-1][1] if stream else found.json()
    assert answer["answer"]
    assert answer["answer"] in [q["text"] for one in answer["citations"] for q in one["quotes"]]


def test_a_stream_tells_what_happens_in_order(service: Service) -> None:
    client, _ = client_of(service)
    asked = {"question": "when are visitors welcome", "abstain": False, "stream": True}
    found = client.post("/v1/ask", json=asked | {"max_new_tokens": 6})
    assert found.headers["content-type"].startswith("text/event-stream")
    events = events_of(found.text)
    names = [name for name, _ in events]
    assert names[:2] == ["start", "retrieved"]
    assert names[-1] == "answer"
    assert set(names[2:-1]) == {"token"}
    (_, start), (_, retrieved), (_, answer) = events[0], events[1], events[-1]
    assert start["id"] == answer["id"]
    assert retrieved["hits"] == answer["hits"]
    assert all(hit.keys() == HIT for hit in retrieved["hits"])
    passages = {hit["id"] for hit in answer["hits"]}
    assert all(token["posterior"].keys() == passages for _, token in events[2:-1])
    assert not service.asks.running


def test_a_question_is_looked_up_with_what_was_said_before(service: Service) -> None:
    client, _ = client_of(service)
    history = [{"question": "when may visitors come", "answer": "from 14:30"}]
    asked = {"question": "until when", "history": history, "stream": True}
    events = dict(events_of(client.post("/v1/ask", json=asked).text))
    assert events["retrieved"]["question"] == "when may visitors come from 14:30 until when"


def test_a_passage_is_read_in_its_document(service: Service) -> None:
    long = "".join(f"Sentence number {n} says nothing new. " for n in range(300))
    service.store.add(Document(long, "long.txt", title="Long"))
    client, _ = client_of(service)
    hits = client.post("/v1/search", json={"question": "sentence 150", "k": 40}).json()["hits"]
    hit = next(h for h in hits if h["source"] == "long.txt" and h["start"] > 500)
    read = client.get(f"/v1/passages/{hit['id']}", params={"context": 120}).json()
    assert read["text"] == hit["text"]
    start, end = read["start"], read["end"]
    assert read["before"] == long[start - 120 : start]
    assert read["after"] == long[end : end + 120]
    beyond = client.get(f"/v1/passages/{hit['id']}", params={"context": start + 1}).json()
    assert beyond["before"] == long[:start]
    assert read["document"] == {"source": "long.txt", "title": "Long", "language": "en", "pages": 0}
    far = client.get(f"/v1/passages/{hit['id']}?context=20000").json()
    assert far["before"] + far["text"] + far["after"] == long
    bare = client.get(f"/v1/passages/{hit['id']}?context=0").json()
    assert (bare["before"], bare["after"]) == ("", "")


def test_a_passage_that_is_not_there_is_told(service: Service) -> None:
    client, _ = client_of(service)
    found = client.get("/v1/passages/nowhere")
    assert found.status_code == 404
    error = found.json()["error"]
    assert (error["code"], error["kind"]) == (3, "missing")
    assert error["message"] == "there is no passage 'nowhere'"
    assert error["explanation"] == "There is no such thing here, or none that you may read."


def test_errors_are_explained_in_the_language_of_the_request(service: Service) -> None:
    client, _ = client_of(service)
    found = client.get("/v1/passages/x", headers={"Accept-Language": "zh-CN,en;q=0.5"})
    assert found.json()["error"]["explanation"] == "这里没有这个对象，或者您无权读取。"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "body.question: Field required"),
    ({"question": ""}, "body.question: String should have at least 1 character"),
    ({"question": 5}, "body.question: Input should be a valid string"),
    ({"question": "a", "k": "5"}, "body.k: Input should be a valid integer"),
    ({"question": "a", "k": True}, "body.k: Input should be a valid integer"),
    ({"question": "a", "k": 0}, "body.k: Input should be greater than or equal to 1"),
    ({"question": "a", "k": 10**30}, "body.k: "),
    ({"question": "a", "k": 1.5}, "body.k: "),
    ({"question": "a", "mode": "fast"}, "body.mode: Input should be 'bm25', 'dense' or 'hybrid'"),
    ({"question": "a", "colour": 1}, "body.colour: Extra inputs are not permitted"),
    ({"question": "a", "where": ["x"]}, "body.where: Input should be a valid dictionary"),
    ({"question": "a", "where": {"source": 1}}, "body.where.source: Input should be a valid"),
    ({"question": "a" * 4001}, "body.question: String should have at most 4000 characters"),
    ({"question": "a", "where": {str(n): "x" for n in range(21)}}, "body.where: Dictionary should"),
]


@pytest.mark.parametrize(("body", "message"), WRONG)
@pytest.mark.parametrize("path", ["/v1/ask", "/v1/search"])
def test_a_wrong_body_is_refused_with_its_place(
    service: Service, path: str, body: dict[str, Any], message: str
) -> None:
    client, _ = client_of(service)
    found = client.post(path, json=body)
    assert found.status_code == 422
    error = found.json()["error"]
    assert error["kind"] == "usage"
    assert error["message"].startswith(message)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"question": "a", "k": NaN}',
        b'{"question": "a", "k": Infinity}',
        b'{"question": "\\ud800"}',
        b"[" * 100_000,
        b'{"question": "a", "k": ' + b"9" * 5000 + b"}",
    ],
)
@pytest.mark.parametrize("path", ["/v1/ask", "/v1/search"])
def test_what_is_no_json_of_ours_is_refused(service: Service, path: str, content: bytes) -> None:
    client, _ = client_of(service)
    found = client.post(path, content=content, headers={"Content-Type": "application/json"})
    assert found.status_code in (400, 422)
    assert found.json()["error"]["kind"] == "usage"


def test_json_of_another_type_is_refused(service: Service) -> None:
    client, _ = client_of(service)
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        found = client.post(
            "/v1/search", content=b'{"question": "a"}', headers={"Content-Type": kind}
        )
        assert found.status_code == 422


def test_the_limits_of_the_server_hold(
    service: Service,
) -> None:
    from dataclasses import replace

    limits = replace(service.config.limits, longest_question=10, k=3, history=1, max_new_tokens=20)
    service.config = replace(service.config, limits=limits)
    client, _ = client_of(service)
    turn = {"question": "a", "answer": "b"}
    asked = {"question": "x" * 11, "k": 4, "history": [turn, turn], "max_new_tokens": 21}
    error = client.post("/v1/ask", json=asked).json()["error"]
    assert error["message"] == (
        "question has 11 characters, at most 10; history has 2 turns, at most 1; "
        "k is 4, at most 3; max_new_tokens is 21, at most 20"
    )
    found = client.post("/v1/search", json={"question": "x" * 11, "k": 4})
    assert found.status_code == 400
    asked = {"question": "x" * 10, "k": 3, "history": [turn], "max_new_tokens": 20}
    assert client.post("/v1/ask", json=asked).status_code == 200
    assert client.post("/v1/search", json={"question": "x" * 10, "k": 3}).status_code == 200


def test_long_questions_and_talks_are_refused_at_the_door(service: Service) -> None:
    client, _ = client_of(service)
    assert LONGEST_QUESTION == 4000
    found = client.post("/v1/ask", json={"question": "x" * 1_000_001})
    assert (found.status_code, found.json()["error"]["kind"]) == (413, "too_large")
    turns = [{"question": "a", "answer": "b"}] * 10_000
    found = client.post("/v1/ask", json={"question": "x", "history": turns})
    assert found.status_code == 422
    assert "at most 1000 items" in found.json()["error"]["message"]


def test_what_was_asked_is_not_repeated_in_an_error(service: Service) -> None:
    client, _ = client_of(service)
    for body in ({"question": 1, "canary7": "canary8"}, {"question": ["canary7"]}):
        assert "canary8" not in client.post("/v1/ask", json=body).text


def test_addresses_that_are_not_there(service: Service) -> None:
    client, _ = client_of(service)
    for path in ("/v1", "/v1/", "/v1/nothing", "/v1/ask/", "/nothing.js", "/../pyproject.toml"):
        found = client.get(path)
        assert (found.status_code, found.json()["error"]["kind"]) == (404, "missing"), path
    found = client.get("/v1/ask")
    assert (found.status_code, found.headers["allow"]) == (405, "POST")
    assert found.json()["error"]["message"] == "this address does not take 'GET'"
    assert client.request("BREW", "/").status_code == 405
    assert client.post("/index.html").status_code == 405


BOUNDS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; "
        "object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
OF_EACH = {"content-type", "content-length", "x-request-id", "x-accel-buffering"}
"""What differs from answer to answer; nothing else may come along, as the name of a server."""


def test_every_answer_carries_what_keeps_a_browser_in_bounds(service: Service) -> None:
    client, _ = client_of(service)
    for found in (
        client.get("/nothing.js"),
        client.get("/v1/health"),
        client.get("/v1/nothing"),
        client.post("/v1/search", json={}),
        client.post("/v1/ask", json={"question": "a", "stream": True}),
    ):
        carried = {name: text for name, text in found.headers.items() if name not in OF_EACH}
        assert carried == BOUNDS
        assert len(found.headers["x-request-id"]) == 16


def test_the_number_of_a_request_may_be_given_but_only_as_a_number(service: Service) -> None:
    client, lines = client_of(service)
    for given, kept in (("abc-1", True), ("a\x00b", False), ("x" * 65, False), ("{}", False)):
        found = client.get("/v1/health", headers={"X-Request-Id": given})
        assert (found.headers["x-request-id"] == given) is kept
        assert lines[-1]["request"] == found.headers["x-request-id"]


@pytest.mark.skipif(not (WEB / "index.html").exists(), reason="the page is not there")
def test_the_page_is_served_with_its_types(service: Service) -> None:
    client, _ = client_of(service)
    assert client.get("/").text == (WEB / "index.html").read_text("utf-8")
    scripts = list(WEB.rglob("*.js"))
    assert scripts
    for script in scripts:
        found = client.get(f"/{script.relative_to(WEB)}")
        assert found.headers["content-type"].startswith("text/javascript")
        assert found.headers["cache-control"] == "no-cache"


def test_the_description_is_published_and_names_the_scheme(service: Service) -> None:
    client, _ = client_of(service)
    found = client.get("/openapi.json").json()
    assert found["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    assert {"/v1/ask", "/v1/search", "/v1/passages/{id}", "/v1/health"} <= found["paths"].keys()
    for path, methods in found["paths"].items():
        for method, told in methods.items():
            assert "4XX" in told["responses"], (path, method)
            assert "422" not in told["responses"], (path, method)
    assert client.get("/docs").status_code == 404


def test_the_log_has_no_question_no_document_and_no_key(service: Service) -> None:
    made = service.keys.create("ring", scopes=("admin",))
    client, lines = client_of(service, **bearer(made.secret))
    client.post("/v1/search", json={"question": "heliotrope canary"})
    client.post("/v1/ask", json={"question": "heliotrope canary", "where": {"canary": "canary"}})
    client.post("/v1/ask", json={"question": "heliotrope canary", "stream": True})
    client.post("/v1/ask", json={"question": "heliotrope canary", "canary": 1})
    client.get("/v1/passages/canary?context=7&canary=canary")
    client.get("/v1/canary?canary=canary")
    client.get("/canary.html")
    client.request("CANARY", "/v1/ask")
    client.get("/v1/health", headers=bearer("cs_canary"))
    client.get("/v1/health", headers={"User-Agent": "canary", "Referer": "canary"})
    text = json.dumps(lines, ensure_ascii=False).lower()
    assert len(lines) == 10
    for secret in ("canary", "heliotrope", made.secret.lower(), HIDDEN.lower(), OPEN.lower()):
        assert secret not in text
    first = lines[0]
    assert first.keys() == {
        *("time", "event", "request", "method", "route", "status", "ms", "bytes", "key")
    }
    assert (first["method"], first["route"], first["status"]) == ("POST", "/v1/search", 200)
    assert first["key"] == made.key.id


def test_a_mistake_of_ours_is_told_without_what_it_said(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, lines = client_of(service)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("canary")

    monkeypatch.setattr(Service, "search", fail)
    found = client.post("/v1/search", json={"question": "a"})
    assert found.status_code == 500
    error = found.json()["error"]
    assert (error["kind"], error["message"]) == (
        "internal",
        "RuntimeError: the server made a mistake",
    )
    assert found.headers["content-security-policy"]
    mistake, request = lines
    assert (mistake["event"], mistake["kind"]) == ("mistake", "RuntimeError")
    assert any("test_app.py:" in place for place in mistake["places"])
    assert (request["status"], request["kind"]) == (500, "internal")
    assert "canary" not in json.dumps(lines) + found.text


def test_a_mistake_in_the_middle_of_a_stream_is_its_last_event(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, lines = client_of(service)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("canary")

    monkeypatch.setattr("consilience.serving.routes.ask.hit_document", fail)
    found = client.post("/v1/ask", json={"question": "visitors", "stream": True})
    name, data = events_of(found.text)[-1]
    assert (name, data["error"]["kind"]) == ("error", "internal")
    assert "canary" not in found.text + json.dumps(lines)
    assert [line["event"] for line in lines] == ["mistake", "request"]


def test_metrics_count_by_route_and_not_by_address(service: Service) -> None:
    client, _ = client_of(service)
    client.get("/v1/passages/one")
    client.get("/v1/passages/two")
    client.get("/nothing/at/all")
    text = client.get("/metrics").text
    assert (
        'consilience_requests_total{method="GET",route="/v1/passages/{id}",status="404"} 2.0'
        in text
    )
    assert "consilience_passages 3.0" in text
    assert "/nothing" not in text


def test_a_model_is_told_by_its_name_and_not_by_where_it_lies(service: Service) -> None:
    client, _ = client_of(service)
    assert str(Path(str(service.config.model)).parent) not in client.get("/v1/health").text
    assert isinstance(service.rag, Rag)


def test_names_are_those_of_the_rooms_below() -> None:
    assert get_args(FusionName) == FUSIONS
    assert get_args(ModeName) == get_args(Mode)


def test_a_hit_has_the_form_that_the_command_line_prints(service: Service) -> None:
    (hit,) = service.search(OWNER, "年假", k=1, mode="bm25")
    assert hit_document(hit) == as_document(hit)
