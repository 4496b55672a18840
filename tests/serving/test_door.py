import asyncio
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter

from consilience.serving import door
from consilience.serving.app import create_app
from consilience.serving.config import Limits
from consilience.serving.gates import Gates
from consilience.serving.places import Places
from consilience.serving.service import Service
from tests.serving.asgi import Reply, Visitor
from tests.serving.small import bearer, client_of, small_service

JSON = {"content-type": "application/json"}


async def parts(*bodies: bytes, between: float = 0.0) -> AsyncIterator[bytes]:
    for body in bodies:
        await asyncio.sleep(between)
        yield body


async def never(read: list[bytes]) -> AsyncIterator[bytes]:
    """A body without an end; notes what was read of it."""
    while True:
        read.append(b"x" * 1000)
        yield read[-1]


def sent(service: Service, visitor: Visitor, body: AsyncIterator[bytes] | None = None) -> Reply:
    app = create_app(service, write=lambda _: None)
    return asyncio.run(asyncio.wait_for(visitor.visit(app, body), 60))


def error_of(reply: Reply) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(reply.body)["error"]
    return error


def test_a_full_house_is_told_before_anything_of_the_body_is_read(service: Service) -> None:
    service.gates = Gates(Limits(searches=1))
    service.gates.enter("searches")
    read: list[bytes] = []
    headers = {**JSON, "transfer-encoding": "chunked"}
    reply = sent(service, Visitor("POST", "/v1/search", headers=headers), never(read))
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert reply.headers["connection"] == "close"
    assert error_of(reply)["kind"] == "overloaded"
    assert len(read) <= 2, "the client's own look ahead"


def test_a_place_is_given_back_however_it_ends(service: Service) -> None:
    client, _ = client_of(service)
    gate = service.gates.gates["searches"]
    client.post("/v1/search", json={"question": "visitors"})
    client.post("/v1/search", json={"question": 5})
    client.post("/v1/search", content=b"{")
    client.post("/v1/search", content=b"x" * 1_000_001)
    assert gate.inside == 0


def test_a_place_is_given_back_when_a_listener_leaves(service: Service) -> None:
    body = json.dumps({"question": "when are visitors welcome", "stream": True}).encode()
    visitor = Visitor("POST", "/v1/ask", headers=JSON, leave=lambda reply: bool(reply.body))
    reply = sent(service, visitor, parts(body))
    assert reply.status == 200
    assert b"event: start" in reply.body
    assert service.gates.answering == 0
    assert not service.asks.running
    assert sum(service.desk.load) == 0


def test_leaving_before_the_answer_stops_the_work(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = json.dumps({"question": "when are visitors welcome"}).encode()
    held, gone = threading.Event(), threading.Event()
    plain = service.rag.look_up

    def slow(*args: Any, **kwargs: Any) -> Any:
        held.set()
        assert gone.wait(30)
        return plain(*args, **kwargs)

    monkeypatch.setattr(service.rag, "look_up", slow)

    async def leave() -> Reply:
        """Send the question whole, and hang up once it is being looked up."""
        left = asyncio.Event()
        pending = [{"type": "http.request", "body": body}]

        async def receive() -> Any:
            if pending:
                return pending.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            return

        app = create_app(service, write=lambda _: None)
        scope = Visitor("POST", "/v1/ask", headers=JSON)._scope()
        task = asyncio.create_task(app(scope, receive, send))
        await asyncio.to_thread(held.wait, 30)
        assert len(service.asks.running) == 1
        left.set()
        await asyncio.wait_for(task, 30)
        return Reply()

    asyncio.run(leave())
    assert not service.asks.running
    assert service.gates.answering == 0
    gone.set()


def test_a_question_is_stopped_by_its_asker(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = client_of(service)
    going = threading.Event()
    plain = service.rag.look_up

    def slow(*args: Any, **kwargs: Any) -> Any:
        assert going.wait(30)
        return plain(*args, **kwargs)

    monkeypatch.setattr(service.rag, "look_up", slow)
    answers: list[Any] = []

    def ask() -> None:
        answers.append(client.post("/v1/ask", json={"question": "visitors"}))

    thread = threading.Thread(target=ask)
    thread.start()
    while not service.asks.running:
        threading.Event().wait(0.01)
    (id_,) = service.asks.running
    other, _ = client_of(service)
    assert other.delete("/v1/ask/0000").status_code == 404
    assert other.delete(f"/v1/ask/{id_}").json() == {"id": id_, "stopped": True}
    thread.join(30)
    going.set()
    assert answers[0].status_code == 409
    assert answers[0].json()["error"]["kind"] == "stopped"
    assert other.delete(f"/v1/ask/{id_}").status_code == 404


def test_a_body_above_the_limit_is_refused_by_its_length(service: Service) -> None:
    read: list[bytes] = []
    headers = {**JSON, "content-length": "1000001"}
    reply = sent(service, Visitor("POST", "/v1/ask", headers=headers), never(read))
    assert (reply.status, error_of(reply)["message"]) == (
        413,
        "the body is larger than 1000000 bytes",
    )
    assert len(read) <= 2


@pytest.mark.parametrize("length", ["", "10", "-1", "1e3", "٣"])
def test_a_body_that_lies_about_its_length_is_cut_off(service: Service, length: str) -> None:
    read: list[bytes] = []
    headers = {**JSON, **({"content-length": length} if length.isascii() and length else {})}
    reply = sent(service, Visitor("POST", "/v1/ask", headers=headers), never(read))
    assert (reply.status, error_of(reply)["kind"]) == (413, "too_large")
    assert 1000 <= len(read) <= 1003


def test_a_body_that_dribbles_is_cut_off(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "PATIENCE", 0.2)
    body = parts(*[b"{"] * 100, between=0.05)
    reply = sent(service, Visitor("POST", "/v1/ask", headers=JSON), body)
    assert (reply.status, reply.headers["connection"]) == (408, "close")
    assert error_of(reply)["kind"] == "slow"
    assert service.gates.answering == 0


def test_a_large_body_has_the_time_that_its_size_needs(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "PATIENCE", 0.05)
    monkeypatch.setattr(door, "SLOWEST", 1_000)
    body = parts(b'{"question": "', *[b"x" * 100] * 6, b'"}', between=0.02)
    reply = sent(service, Visitor("POST", "/v1/search", headers=JSON), body)
    assert reply.status == 200


@pytest.mark.parametrize(
    ("path", "kind", "scope"),
    [
        ("/v1/documents", "multipart/form-data; boundary=x", "write"),
        ("/v1/keys", "application/json", "admin"),
    ],
)
def test_of_one_who_may_not_no_body_is_read(
    service: Service, path: str, kind: str, scope: str
) -> None:
    made = service.keys.create("reader")
    read: list[bytes] = []
    headers = {"content-type": kind, **bearer(made.secret)}
    reply = sent(service, Visitor("POST", path, headers=headers), never(read))
    assert reply.status == 403
    assert error_of(reply)["message"] == f"this needs a key with the scope {scope}; yours has read"
    assert len(read) <= 2


def test_a_key_above_its_rate_is_told_to_wait(served: Path, tiny_model_folder: Path) -> None:
    with small_service(served, tiny_model_folder, limits={"rate": 3}) as service:
        made, other = service.keys.create("one"), service.keys.create("two")
        client, _ = client_of(service)
        for _ in range(3):
            assert client.get("/v1/jobs", headers=bearer(made.secret)).status_code == 200
        found = client.get("/v1/jobs", headers=bearer(made.secret))
        assert (found.status_code, found.json()["error"]["kind"]) == (429, "rate")
        assert 1 <= int(found.headers["retry-after"]) <= 20
        assert client.get("/v1/jobs", headers=bearer(other.secret)).status_code == 200
        assert client.get("/v1/health", headers=bearer(made.secret)).status_code == 200


def test_a_full_desk_is_told_as_a_full_house(service: Service) -> None:
    # A desk that took it in would never come to it, and says so after these seconds.
    service.desk.limits = replace(service.desk.limits, concurrent=0, waiting=0, seconds=5)
    client, _ = client_of(service)
    found = client.post("/v1/ask", json={"question": "a"})
    assert found.json()["error"]["message"] == (
        "0 questions are in work or waiting, and there is room for 0"
    )
    assert (found.status_code, found.headers["retry-after"]) == (503, "2")
    assert service.gates.answering == 0


@pytest.mark.parametrize(
    ("host", "may"),
    [
        ("127.0.0.1:8123", True),
        ("localhost", True),
        ("LOCALHOST:1", True),
        ("[::1]:8123", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example:8123", False),
        ("evil.example@127.0.0.1", False),
        ("192.168.0.7", False),
        ("", False),
        ("[::1", True),
        ("[evil]", False),
    ],
)
def test_without_keys_only_names_of_this_machine_are_answered(
    service: Service, host: str, may: bool
) -> None:
    client, _ = client_of(service, Host=host)
    for path in ("/v1/documents", "/v1/health", "/nothing.js"):
        assert (client.get(path).status_code != 403) is may


@pytest.mark.parametrize(
    ("origin", "may"),
    [
        (None, True),
        ("http://127.0.0.1:8123", True),
        ("https://127.0.0.1:8123", True),
        ("http://127.0.0.1:9999", False),
        ("http://evil.example", False),
        ("null", False),
        ("", False),
    ],
)
def test_without_keys_a_page_of_another_site_changes_nothing(
    service: Service, origin: str | None, may: bool
) -> None:
    client, _ = client_of(service, **({} if origin is None else {"Origin": origin}))
    found = client.post("/v1/search", json={"question": "visitors"})
    assert (found.status_code == 200) is may
    assert may or found.json()["error"]["kind"] == "forbidden"
    assert client.get("/v1/health").status_code == 200
    assert "access-control-allow-origin" not in found.headers


def test_with_keys_a_host_in_front_may_have_any_name(service: Service) -> None:
    made = service.keys.create("a")
    client, _ = client_of(service, Host="rag.example", **bearer(made.secret))
    assert client.get("/v1/documents").status_code == 200


def test_a_server_for_others_without_keys_answers_nobody(
    served: Path, tiny_model_folder: Path
) -> None:
    with small_service(served, tiny_model_folder, host="0.0.0.0") as service:
        client, _ = client_of(service)
        assert client.get("/v1/documents").status_code == 401
        assert client.get("/v1/health").json()["documents"] is None


def test_the_last_key_revoked_opens_nothing(service: Service) -> None:
    client, _ = client_of(service)
    assert client.get("/v1/keys").status_code == 200
    made = service.keys.create("a")
    service.keys.revoke(made.key.id)
    assert client.get("/v1/keys").status_code == 401


def test_a_closing_server_takes_nothing_new(service: Service) -> None:
    client, _ = client_of(service)
    service.gates.close()
    for method, path in (("POST", "/v1/ask"), ("POST", "/v1/search"), ("GET", "/v1/documents")):
        found = client.request(method, path, json={"question": "a"})
        assert (found.status_code, found.headers["retry-after"]) == (503, "10")
    assert client.get("/v1/health").json()["status"] == "closing"
    assert client.get("/nothing.css").status_code == 404


def test_a_route_that_states_no_scope_is_a_mistake() -> None:
    router = APIRouter()

    @router.get("/v1/forgotten")
    async def forgotten() -> None:
        return

    with pytest.raises(TypeError, match="GET /v1/forgotten states no scope"):
        Places(router.routes)  # type: ignore[arg-type]


def test_a_route_elsewhere_is_a_mistake() -> None:
    from consilience.serving.access import Reader

    router = APIRouter()

    @router.get("/elsewhere")
    async def elsewhere(_: Reader) -> None:
        return

    with pytest.raises(TypeError, match="GET /elsewhere is not below /v1"):
        Places(router.routes)  # type: ignore[arg-type]
