"""Every route, every role, every owner: what each may have, held against one table.

The routes come out of the OpenAPI document, so that a new one without a row fails.
"""

import asyncio
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlencode

import httpx2
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from consilience.documents import Document
from consilience.serving.access import OWNER
from consilience.serving.app import create_app
from consilience.serving.service import Service
from consilience.serving.subjects import Action, Subject
from tests.serving.asgi import Visitor
from tests.serving.small import bearer, end_key, small_service
from tests.serving.world import ended

Target = Literal["passage", "document", "job", "evaluation", "ask", "key", "run", "link", "model"]
Ownership = Literal["visible", "hidden", "guessed"]
GUESSED = "0123456789abcdef"


@dataclass(frozen=True)
class Row:
    """What a route is for, and how it is called.

    Attributes:
        action: What a key must be granted; None for everyone.
        target: What its path or query names; None when nothing.
        send: The rest of the request.
        query: The name of the query parameter with the target; empty when the path has it.
        fine: The status of a request that may be.
        endless: Whether it goes on until somebody leaves.
    """

    action: Action | None
    target: Target | None = None
    send: dict[str, Any] = field(default_factory=dict)
    query: str = ""
    fine: tuple[int, ...] = (200,)
    endless: bool = False


QUESTION = {"question": "visitors of the safe heliotrope", "k": 9}
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": QUESTION["question"]}]}
FILE = {"files": [("files", ("new.txt", b"Something new."))]}
EVALUATION = {"files": [("data", ("q.jsonl", b'{"question": "a", "answers": ["b"]}\n'))]}
NEW_KEY = {"json": {"name": "new", "scopes": ["read"]}}
SETTING = {"json": {"values": {"limits.history": 49}}}

TABLE: dict[tuple[str, str], Row] = {
    ("GET", "/v1/health"): Row(None),
    ("GET", "/metrics"): Row("admin"),
    ("POST", "/v1/ask"): Row("read", send={"json": QUESTION}),
    ("DELETE", "/v1/ask/{id}"): Row("read", "ask"),
    ("POST", "/v1/search"): Row("read", send={"json": QUESTION}),
    ("GET", "/v1/passages/{id}"): Row("read", "passage"),
    ("GET", "/v1/documents"): Row("read"),
    ("POST", "/v1/documents"): Row("write", send=FILE, fine=(202,)),
    ("DELETE", "/v1/documents"): Row("write", "document", query="source"),
    ("GET", "/v1/documents/text"): Row("read", "document", query="source"),
    # No document here has an original; that one which has none looks like one that is not there.
    ("GET", "/v1/documents/page"): Row(
        "read", "document", {"params": {"page": 1}}, "source", fine=(404,)
    ),
    ("GET", "/v1/documents/page/boxes"): Row(
        "read", "document", {"params": {"page": 1, "start": 0, "end": 1}}, "source", fine=(404,)
    ),
    ("GET", "/v1/jobs"): Row("read"),
    ("GET", "/v1/jobs/events"): Row("read", endless=True),
    ("GET", "/v1/jobs/{id}"): Row("read", "job"),
    ("POST", "/v1/jobs/{id}/cancel"): Row("write", "job"),
    # It is done, which is not a thing to try again; whoever may not know of it is not told so.
    ("POST", "/v1/jobs/{id}/retry"): Row("write", "job", fine=(400,)),
    ("GET", "/v1/evaluations"): Row("read"),
    ("POST", "/v1/evaluations"): Row("write", send=EVALUATION, fine=(202,)),
    ("GET", "/v1/evaluations/{id}/report"): Row("read", "evaluation"),
    ("POST", "/v1/evaluations/{id}/link"): Row("read", "evaluation", fine=(201,)),
    ("DELETE", "/v1/evaluations/{id}"): Row("write", "evaluation", fine=(204,)),
    ("GET", "/v1/reports/{link}"): Row(None, "link"),
    ("GET", "/v1/runs"): Row("read"),
    ("GET", "/v1/runs/{name}"): Row("read", "run"),
    ("GET", "/v1/runs/{name}/events"): Row("read", "run", endless=True),
    ("GET", "/v1/settings"): Row("admin"),
    ("PUT", "/v1/settings"): Row("admin", send=SETTING),
    ("GET", "/v1/keys"): Row("admin"),
    ("POST", "/v1/keys"): Row("admin", send=NEW_KEY, fine=(201,)),
    ("DELETE", "/v1/keys/{id}"): Row("admin", "key"),
    ("GET", "/v1/models"): Row("read"),
    ("GET", "/v1/models/{name}"): Row("read", "model"),
    ("POST", "/v1/chat/completions"): Row("read", send={"json": CHAT}),
    ("POST", "/v1/embeddings"): Row("read", send={"json": {"model": "tiny", "input": "a"}}),
}
"""The one table."""


@dataclass(frozen=True)
class Role:
    """Who asks.

    Attributes:
        scopes: What the key grants; None without a valid key.
        labels: As the key has them.
    """

    scopes: tuple[Action, ...] | None
    labels: tuple[str, ...] | None = None

    def may(self, action: Action | None) -> bool:
        order = ("read", "write", "admin")
        if action is None:
            return True
        if self.scopes is None:
            return False
        return order.index(action) <= max(map(order.index, self.scopes))

    @property
    def reads_hidden(self) -> bool:
        return self.labels is None or "staff" in self.labels


ROLES = {
    "nobody": Role(None),
    "forger": Role(None),
    "expired": Role(None),
    "revoked": Role(None),
    "reader": Role(("read",)),
    "public reader": Role(("read",), ()),
    "ward reader": Role(("read",), ("ward",)),
    "staff reader": Role(("read",), ("staff",)),
    "writer": Role(("write",)),
    "ward writer": Role(("write",), ("ward",)),
    "admin": Role(("admin",)),
}


@dataclass
class Building:
    """A service with a key for every role, and things of various owners."""

    service: Service
    app: FastAPI
    secrets: dict[str, str]
    subjects: dict[str, Subject]

    def headers(self, role: str) -> dict[str, str]:
        secret = self.secrets.get(role)
        return {} if secret is None else bearer(secret)

    def client(self, role: str) -> TestClient:
        return TestClient(self.app, "http://127.0.0.1:8123", headers=self.headers(role))


@pytest.fixture(scope="module")
def building(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path
) -> Iterator[Building]:
    folder = tmp_path_factory.mktemp("matrix")
    run = folder / "runs" / "one"
    run.mkdir(parents=True)
    (run / "config.json").write_text('{"steps": 2, "objectives": {"marginal": 1}}', "utf-8")
    (run / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n', "utf-8")
    model = folder / "tiny"
    model.symlink_to(tiny_model_folder, target_is_directory=True)
    with small_service(folder, model, limits={"rate": 0}) as service:
        keys, subjects = {}, {}
        for name, role in ROLES.items():
            if name != "nobody":
                made = service.keys.create(
                    name, scopes=role.scopes or ("admin",), labels=role.labels
                )
                keys[name], subjects[name] = made.secret, made.key.subject
        end_key(service, subjects["expired"].id)
        service.keys.revoke(subjects["revoked"].id)
        keys["forger"] = "cs_" + secrets.token_urlsafe(32)
        yield Building(service, create_app(service, write=lambda _: None), keys, subjects)


class Stopped:
    """A question in work."""

    def __init__(self) -> None:
        self.id = secrets.token_hex(8)

    def cancel(self) -> None:
        return


def passage(building: Building, role: str, which: Ownership) -> str:
    source = "visits.md" if which == "visible" else "safe.txt"
    hits = building.service.search(OWNER, "visitors safe", k=9, mode="bm25")
    return next(hit.passage.id for hit in hits if hit.passage.source == source)


def document(building: Building, role: str, which: Ownership) -> str:
    """A document of its own, so that it can be deleted."""
    labels = () if which == "visible" else ("staff",)
    text = "A rose grows here." if which == "visible" else "A heliotrope grows here."
    source = f"{which}-{secrets.token_hex(4)}.txt"
    building.service.store.add(Document(text, source, access=labels))
    return source


def job(building: Building, role: str, which: Ownership) -> str:
    """A job of the role or, for those who may not make one and for hidden ones, of another."""
    maker = role if which == "visible" and ROLES[role].may("write") else "admin"
    client = building.client(maker)
    found = client.post(
        "/v1/documents", files=[("files", ("job.txt", secrets.token_bytes(4).hex()))]
    )
    return str(ended(client, found.json()["jobs"][0])["id"])


def evaluation(building: Building, role: str, which: Ownership) -> str:
    maker = role if which == "visible" and ROLES[role].may("write") else "admin"
    client = building.client(maker)
    found = ended(client, client.post("/v1/evaluations", **EVALUATION).json())
    assert found["state"] == "done", found
    return str(client.get("/v1/evaluations").json()["evaluations"][0]["id"])


def ask(building: Building, role: str, which: Ownership) -> str:
    asker = building.subjects["forger" if which == "hidden" else role]
    ticket = Stopped()
    building.service.asks.begin(ticket, asker)
    return ticket.id


def key(building: Building, role: str, which: Ownership) -> str:
    return building.service.keys.create("to be revoked").key.id


def run(building: Building, role: str, which: Ownership) -> str:
    return "one"


def link(building: Building, role: str, which: Ownership) -> str:
    id_ = evaluation(building, "admin", "visible")
    url = building.client("admin").post(f"/v1/evaluations/{id_}/link").json()["url"]
    return str(url).rpartition("/")[2]


def model(building: Building, role: str, which: Ownership) -> str:
    return "tiny"


MAKERS: dict[Target, Callable[[Building, str, Ownership], str]] = {
    "passage": passage,
    "document": document,
    "job": job,
    "evaluation": evaluation,
    "ask": ask,
    "key": key,
    "run": run,
    "link": link,
    "model": model,
}

HIDEABLE = ("passage", "document", "job", "evaluation", "ask")
"""What can be there without being for everyone who may use the route."""


def sees(role: str, target: Target, which: Ownership) -> bool:
    """Whether a role that may use the route sees this one."""
    if which == "guessed":
        return False
    if target in ("passage", "document"):
        return which == "visible" or ROLES[role].reads_hidden
    if target in ("job", "evaluation", "ask"):
        made = ROLES[role].may("write") or target == "ask"
        return role == "admin" or (which == "visible" and made)
    return True


def call(building: Building, place: tuple[str, str], role: str, target: str) -> tuple[int, str]:
    """The status and the text of an answer."""
    method, path = place
    row = TABLE[place]
    path = path.replace("{id}", "{}").replace("{name}", "{}").replace("{link}", "{}")
    path = path.format(quote(target, safe=""))
    if row.endless:
        visitor = Visitor(method, path, headers=building.headers(role), leave=lambda _: True)
        reply = asyncio.run(visitor.visit(building.app))
        return reply.status, reply.body.decode()
    send = dict(row.send)
    if row.query:
        send["params"] = {**send.get("params", {}), row.query: target}
    found: httpx2.Response = building.client(role).request(method, path, **send)
    return found.status_code, found.text


PLACES = [
    pytest.param(place, role, id=f"{place[0]} {place[1]} as {role}")
    for place in TABLE
    for role in ROLES
]


def test_every_route_has_a_row(building: Building) -> None:
    paths = building.app.openapi()["paths"]
    found = {(method.upper(), path) for path, told in paths.items() for method in told}
    assert found == set(TABLE)


@pytest.mark.parametrize(("place", "role"), PLACES)
def test_a_role_gets_what_the_table_says(
    building: Building, place: tuple[str, str], role: str
) -> None:
    row = TABLE[place]
    ownerships: tuple[Ownership, ...] = ("visible", "hidden", "guessed")
    if row.target is None or not ROLES[role].may(row.action):
        ownerships = ("guessed",)
    elif row.target not in HIDEABLE:
        ownerships = ("visible", "guessed")
    answers = {}
    for which in ownerships:
        make = row.target is not None and which != "guessed"
        name = MAKERS[row.target](building, role, which) if make and row.target else GUESSED
        status, text = call(building, place, role, name)
        answers[which] = (status, text.replace(name, "NAME"))
        assert status in wanted(row, role, which), (which, text)
        # Whoever was given the address of a report may read it, whatever the key says.
        if not ROLES[role].reads_hidden and row.target != "link":
            assert "heliotrope" not in text.replace(str(QUESTION["question"]), "")
            assert "safe.txt" not in text
    if "hidden" in answers and not sees(role, row.target or "passage", "hidden"):
        assert answers["hidden"] == answers["guessed"], "hidden must look as if it were not there"


def wanted(row: Row, role: str, which: Ownership) -> tuple[int, ...]:
    if not ROLES[role].may(row.action):
        return (401,) if ROLES[role].scopes is None else (403,)
    if row.target is not None and not sees(role, row.target, which):
        return (404,)
    return row.fine


@pytest.mark.parametrize("role", [name for name, one in ROLES.items() if one.may("read")])
def test_lists_and_counts_are_those_of_what_may_be_read(building: Building, role: str) -> None:
    client, store = building.client(role), building.service.store
    every = {one.source: one for one in store.sources()}
    seen = {name for name, one in every.items() if not one.access or ROLES[role].reads_hidden}
    listed = client.get("/v1/documents", params={"limit": 1000}).json()
    assert {one["source"] for one in listed["documents"]} == seen
    assert listed["total"] == len(seen)
    health = client.get("/v1/health").json()
    counted = ROLES[role].labels is None
    assert (health["documents"] == len(every)) is counted
    assert (health["documents"] is None) is not counted
    hits = client.post("/v1/search", json=QUESTION | {"k": 50}).json()["hits"]
    assert {hit["source"] for hit in hits} <= seen
    asked = client.post("/v1/ask", json=QUESTION | {"abstain": False}).json()
    assert {one["source"] for one in asked["citations"] + asked["hits"]} <= seen


@pytest.mark.parametrize("role", ["public reader", "ward reader"])
def test_a_key_of_metadata_that_only_hidden_documents_have_is_one_that_nobody_has(
    building: Building, role: str
) -> None:
    client = building.client(role)
    answers = []
    for name in ("metadata.vault", "metadata.nothing"):
        asked = {"question": "visitors", "where": {name: "seven"}}
        found = client.post("/v1/search", json=asked)
        answers.append((found.status_code, found.text))
        assert client.post("/v1/ask", json=asked).json()["hits"] == []
    assert answers[0] == answers[1] == (200, '{"hits": []}')
    told = building.client("reader").post("/v1/search", json=asked)
    assert "metadata.vault" in told.json()["error"]["hint"]


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic {}",
        "bearer  {}x",
        "Bearer {} {}",
        "Token {}",
        "{}",
        "Bearer cs_",
        "Bearer " + "x" * 5000,
    ],
)
def test_a_header_that_is_nearly_right_opens_nothing(building: Building, header: str) -> None:
    secret = building.secrets["admin"]
    client = TestClient(building.app, "http://127.0.0.1:8123")
    sent = {"Authorization": header.format(secret, secret)}
    found = client.get("/v1/keys", headers=sent)
    assert found.status_code == 401
    assert found.headers["www-authenticate"] == "Bearer"
    query = urlencode({"key": secret, "token": secret, "access_token": secret})
    assert client.get(f"/v1/keys?{query}").status_code == 401
    assert client.get("/v1/keys", headers={"Cookie": f"key={secret}"}).status_code == 401


def test_a_key_that_is_revoked_or_ends_while_it_is_used_opens_nothing_more(
    building: Building,
) -> None:
    keys = building.service.keys
    for end in (lambda id_: keys.revoke(id_), lambda id_: end_key(building.service, id_)):
        made = keys.create("for a while")
        client = TestClient(building.app, "http://127.0.0.1:8123", headers=bearer(made.secret))
        assert client.get("/v1/documents").status_code == 200
        end(made.key.id)
        assert client.get("/v1/documents").status_code == 401
