"""Evaluations over HTTP: asked through the desk, told as a job, and shown as a page of its own."""

import gzip
import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from consilience.evaluation import read_run
from consilience.serving import evaluations
from consilience.serving.desk import Desk, Ticket
from consilience.serving.errors import OverloadedError
from consilience.serving.service import Service
from tests.serving.small import bearer, client_of, small_service
from tests.serving.world import SECONDS, ended, until

QUESTIONS = [
    {"question": "when are visitors welcome", "answers": ["14:30"], "id": "q1"},
    {"question": "年假几天", "answers": ["五天"], "id": "q2"},
    {"question": "what word opens the safe", "answers": ["heliotrope"], "id": "q3"},
]
DATA = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in QUESTIONS).encode()


def started(client: TestClient, data: bytes = DATA, **fields: Any) -> dict[str, Any]:
    files = {"data": ("问题.jsonl", data)}
    found = client.post("/v1/evaluations", files=files, data=fields)
    assert found.status_code == 202, found.text
    return found.json()


def keyed(service: Service, name: str, *scopes: Any, labels: Any = None) -> TestClient:
    made = service.keys.create(name, scopes=scopes, labels=labels)
    return client_of(service, **bearer(made.secret))[0]


class Held:
    """A desk that answers when it may."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.may, self.asked = desk, threading.Event(), list[str]()
        self.full = 0

    def submit(self, question: str, options: Any) -> Ticket:
        if self.full:
            self.full -= 1
            raise OverloadedError("full")
        self.asked.append(question)
        assert self.may.wait(SECONDS)
        return self.desk.submit(question, options)


@pytest.fixture
def held(service: Service) -> Iterator[Held]:
    desk = Held(service.desk)
    service.jobs.evaluations._desk = desk
    yield desk
    desk.may.set()


def test_questions_are_asked_and_a_report_is_written(service: Service) -> None:
    client, _ = client_of(service)
    job = started(client, name="week 3", k="2", mode="bm25")
    assert (job["kind"], job["name"], job["total"]) == ("evaluation", "week 3", 3)
    over = ended(client, job)
    assert (over["state"], over["done"], over["done_bytes"]) == ("done", 3, len(DATA))
    (found,) = client.get("/v1/evaluations").json()["evaluations"]
    assert (found["id"], found["state"], found["questions"]) == (job["id"], "done", 3)
    assert (found["k"], found["mode"], found["report"]) == (2, "bm25", True)
    assert set(found["metrics"]) >= {"f1", "exact_match"}
    assert "owner" not in found
    records = read_run(service.config.evaluation_folder / job["id"] / "run.jsonl").records
    assert [one.id for one in records] == ["q1", "q2", "q3"]
    assert len(records[0].readings) <= 2


def test_the_answers_are_those_of_the_model(service: Service) -> None:
    from consilience.model import AskOptions

    client, _ = client_of(service)
    job = ended(client, started(client))
    run = read_run(service.config.evaluation_folder / job["id"] / "run.jsonl")
    for record, question in zip(run.records, QUESTIONS, strict=True):
        answer = service.rag.ask(question["question"], service.store, AskOptions())
        assert record.answer == answer.text
        assert {one.id for one in record.readings} == set(answer.posterior)


def test_a_report_is_a_page_of_its_own(service: Service) -> None:
    client, _ = client_of(service)
    job = ended(client, started(client, name="<b>week 3"))
    found = client.get(f"/v1/evaluations/{job['id']}/report")
    assert found.headers["content-type"] == "text/html; charset=utf-8"
    policy = found.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'")
    assert "frame-ancestors 'self'" in policy
    (inside,) = re.findall(r"script-src (&#x27;|')(sha256-[^'&]+)", found.text)
    assert f"script-src '{inside[1]}'" in policy, "the script that it has may run, and no other"
    assert found.headers["x-frame-options"] == "SAMEORIGIN"
    assert 'lang="en"' in found.text
    assert "&lt;b&gt;week 3" in found.text


def test_a_report_speaks_the_language_of_whoever_asked(service: Service) -> None:
    client, _ = client_of(service, **{"Accept-Language": "zh-CN,zh;q=0.9"})
    job = ended(client, started(client))
    assert 'lang="zh-Hans"' in client.get(f"/v1/evaluations/{job['id']}/report").text


def test_a_browser_opens_a_report_without_a_key(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, anyone = keyed(service, "a", "write"), client_of(service)[0]
    other = keyed(service, "b", "read")
    job = ended(owner, started(owner))
    assert anyone.get(f"/v1/evaluations/{job['id']}/report").status_code == 401
    assert other.post(f"/v1/evaluations/{job['id']}/link").status_code == 404
    made = owner.post(f"/v1/evaluations/{job['id']}/link")
    assert (made.status_code, made.json()["seconds"]) == (201, 60)
    shown = anyone.get(made.json()["url"])
    assert shown.text == owner.get(f"/v1/evaluations/{job['id']}/report").text
    assert anyone.get(f"{made.json()['url']}x").status_code == 404
    now = evaluations.time.monotonic()
    monkeypatch.setattr(service.jobs.evaluations, "_clock", lambda: now + 100)
    assert anyone.get(made.json()["url"]).status_code == 404


def test_an_evaluation_reads_what_its_key_may_and_is_told_to_nobody_else(service: Service) -> None:
    guest, other = keyed(service, "g", "write", labels=()), keyed(service, "o", "write")
    admin, reader = keyed(service, "a", "admin"), keyed(service, "r", "read")
    job = ended(guest, started(guest, mode="bm25"))
    report = guest.get(f"/v1/evaluations/{job['id']}/report").text
    assert "Nobody else does" not in report
    for client in (other, reader):
        assert client.get("/v1/evaluations").json() == {"evaluations": []}
        assert client.get(f"/v1/evaluations/{job['id']}/report").status_code == 404
    assert other.delete(f"/v1/evaluations/{job['id']}").status_code == 404
    assert len(admin.get("/v1/evaluations").json()["evaluations"]) == 1
    denied = reader.post("/v1/evaluations", files={"data": ("a.jsonl", DATA)})
    assert denied.status_code == 403


def test_a_cancelled_evaluation_keeps_what_was_answered_and_goes_on(
    service: Service, held: Held
) -> None:
    client, _ = client_of(service)
    job = started(client)
    until(lambda: held.asked)
    real = held.desk.submit

    def submit(question: str, options: Any) -> Ticket:
        if len(held.asked) == 2:
            client.post(f"/v1/jobs/{job['id']}/cancel")
        return real(question, options)

    held.desk.submit = submit  # type: ignore[method-assign]
    held.may.set()
    assert ended(client, job)["state"] == "cancelled"
    run = service.config.evaluation_folder / job["id"] / "run.jsonl"
    assert len(read_run(run).records) == 1
    listed = client.get("/v1/evaluations").json()["evaluations"]
    assert (listed[0]["state"], listed[0]["report"]) == ("cancelled", False)
    assert client.get(f"/v1/evaluations/{job['id']}/report").status_code == 404
    held.asked.clear()
    held.desk.submit = real  # type: ignore[method-assign]
    client.post(f"/v1/jobs/{job['id']}/retry")
    assert ended(client, job)["state"] == "done"
    assert held.asked == [one["question"] for one in QUESTIONS[1:]]


def test_a_changed_store_begins_it_anew(service: Service) -> None:
    from consilience import Document

    client, _ = client_of(service)
    job = ended(client, started(client))
    folder = service.config.evaluation_folder / job["id"]
    service.store.add(Document("one more", "more.txt"))
    service.jobs.backlog._jobs[job["id"]] = service.jobs.backlog._jobs[job["id"]].over("failed")
    client.post(f"/v1/jobs/{job['id']}/retry")
    assert ended(client, job)["state"] == "done"
    run = read_run(folder / "run.jsonl")
    assert (len(run.records), run.setup["store"][1]) == (3, service.store.sequence)


def test_a_full_desk_is_waited_for(
    service: Service, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluations, "_PAUSE", 0.01)
    held.full = 20
    held.may.set()
    client, _ = client_of(service)
    assert ended(client, started(client))["state"] == "done"
    assert held.full == 0


def test_a_stop_leaves_it_to_the_next_start(
    served: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    with small_service(served, tiny_model_folder) as service:
        desk = Held(service.desk)
        service.jobs.evaluations._desk = desk
        client, _ = client_of(service)
        job = started(client)
        until(lambda: desk.asked)
        threading.Timer(0.2, desk.may.set).start()
    with small_service(served, tiny_model_folder) as service:
        client, _ = client_of(service)
        assert ended(client, job)["state"] == "done"


BAD = {
    "no questions": (b'{"text": "a document"}\n', 422, "questions.*"),
    "no json": (b"not json\n", 422, ".*line 1: not JSON.*"),
    "empty": (b"", 422, ".*holds no question"),
    "damaged gzip": (gzip.compress(DATA)[:-20], 400, "the gzip file is damaged: .*"),
    "a bomb": (gzip.compress(bytes(20_000_001)), 400, "the file holds more than 20000000 bytes.*"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_without_questions_is_refused_at_once(service: Service, case: str) -> None:
    data, status, message = BAD[case]
    client, _ = client_of(service)
    found = client.post("/v1/evaluations", files={"data": ("a.jsonl", data)})
    assert found.status_code == status
    assert re.fullmatch(message, found.json()["error"]["message"], re.DOTALL)
    assert list(service.config.evaluation_folder.iterdir()) == []
    assert client.get("/v1/jobs").json()["jobs"] == []


def test_questions_may_be_packed(service: Service) -> None:
    client, _ = client_of(service)
    job = started(client, gzip.compress(DATA), limit="1")
    assert (job["total"], job["name"]) == (1, "问题.jsonl")
    assert ended(client, job)["done"] == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"k": "0"}, "k is '0'"),
        ({"k": "51"}, "k is '51'"),
        ({"k": "٣"}, "k is '٣'"),
        ({"limit": "-1"}, "limit is '-1'"),
        ({"limit": "9" * 5000}, "the field 'limit' has more than 4096 bytes"),
        ({"mode": "magic"}, "mode is 'magic'"),
        ({"colour": "red"}, "there is no field 'colour'"),
        ({"name": "a\0b"}, "the name of a file holds U+0000 at place 2, which cannot be shown"),
    ],
)
def test_fields_that_cannot_be_are_refused(
    service: Service, fields: dict[str, str], message: str
) -> None:
    client, _ = client_of(service)
    found = client.post("/v1/evaluations", files={"data": ("a.jsonl", DATA)}, data=fields)
    assert found.status_code in (400, 413)
    assert found.json()["error"]["message"] == message
    assert list(service.config.evaluation_folder.iterdir()) == []


def test_an_id_is_looked_up_and_is_no_path(service: Service) -> None:
    client, _ = client_of(service)
    outside = service.config.evaluation_folder.parent / "0123456789abcdef"
    outside.mkdir()
    (outside / "evaluation.json").write_text("{}")
    link = service.config.evaluation_folder / "fedcba9876543210"
    link.symlink_to(outside, target_is_directory=True)
    for id_ in ("%2E%2E", "%2E%2E%2F0123456789abcdef", "0123456789abcdef", link.name, "x%00"):
        assert client.get(f"/v1/evaluations/{id_}/report").status_code == 404
        assert client.delete(f"/v1/evaluations/{id_}").status_code == 404
    assert client.get("/v1/evaluations").json() == {"evaluations": []}
    shutil.rmtree(outside)


def test_an_evaluation_is_deleted_while_it_runs_and_does_not_come_back(
    service: Service, held: Held
) -> None:
    client, _ = client_of(service)
    job = started(client)
    until(lambda: held.asked)
    assert client.delete(f"/v1/evaluations/{job['id']}").status_code == 204
    held.may.set()
    until(lambda: not service.jobs.backlog.is_running([job["id"]]))
    assert client.get("/v1/evaluations").json() == {"evaluations": []}
    assert list(service.config.evaluation_folder.iterdir()) == []


def test_a_report_is_not_written_for_what_was_deleted_at_the_last_moment(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, real = client_of(service)[0], evaluations.evaluate

    def evaluate(*given: Any, **rest: Any) -> Any:
        found = real(*given, **rest)
        (one,) = client.get("/v1/evaluations").json()["evaluations"]
        assert client.delete(f"/v1/evaluations/{one['id']}").status_code == 204
        return found

    monkeypatch.setattr(evaluations, "evaluate", evaluate)
    assert ended(client, started(client))["state"] == "cancelled"
    assert list(service.config.evaluation_folder.iterdir()) == []


def test_only_so_many_are_kept(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    client, _ = client_of(service)
    ended(client, started(client, limit="1"))
    monkeypatch.setattr(evaluations, "MOST", 1)
    found = client.post("/v1/evaluations", files={"data": ("a.jsonl", DATA)})
    assert (found.status_code, found.json()["error"]["hint"]) == (400, "delete some")
