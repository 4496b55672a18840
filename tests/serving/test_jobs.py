"""Jobs: one after the other, told as they go, cancelled, tried again, going on after any end."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from consilience.errors import DamagedError
from consilience.serving.backlog import BacklogLimits
from consilience.serving.job import Job
from consilience.serving.ledger import FILE, Ledger
from tests.documents import samples
from tests.serving.small import events_of
from tests.serving.world import SECONDS, HeldEncoder, World, ended, sent, until, uploaded, world

LONG = "\n\n".join(f"Paragraph {n}. " + f"It says number {n} again. " * 30 for n in range(60))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as opened:
        yield opened


def held(place: World, *files: tuple[str, bytes]) -> list[dict[str, Any]]:
    """Jobs of which the first has come to embedding and stays there."""
    place.encoder.hold()
    jobs = sent(place.client(), *files)
    assert place.encoder.asked.wait(SECONDS)
    return jobs


def test_jobs_run_one_after_the_other(place: World) -> None:
    first, second = held(place, ("a.txt", b"first"), ("b.txt", b"second"))
    client = place.client()
    states = [job["state"] for job in client.get("/v1/jobs").json()["jobs"]]
    assert states == ["reading", "waiting"]
    place.encoder.may.set()
    assert [ended(client, job)["state"] for job in (first, second)] == ["done", "done"]


def test_progress_is_told_while_a_job_runs(tmp_path: Path) -> None:
    told: list[Job | None] = []
    with world(tmp_path, on_change=told.append) as place:
        uploaded(place.client(), "long.md", LONG.encode())
    states = list(dict.fromkeys(job.state for job in told if job is not None))
    assert states == ["waiting", "reading", "embedding", "done"]
    embedding = [job for job in told if job is not None and job.state == "embedding"]
    assert len(embedding) >= 3
    assert embedding[0].rate > 0
    assert any(job.seconds_left is not None and job.seconds_left > 0 for job in embedding)
    assert embedding[-1].seconds_left == 0
    assert embedding[-1].done_bytes == len(LONG.encode())
    assert embedding[-1].passages > 1
    assert told[-1] is None, "the end is told too"


def test_a_cancelled_job_leaves_nothing(place: World) -> None:
    (job,) = held(place, ("long.md", LONG.encode()))
    client = place.client()
    assert client.post(f"/v1/jobs/{job['id']}/cancel").json()["state"] == "reading"
    place.encoder.may.set()
    found = ended(client, job)
    assert (found["state"], found["error"], found["seconds_left"]) == ("cancelled", None, None)
    assert len(place.store) == 0
    assert len(place.encoder.seen) <= 32, "it stopped between batches"


def test_a_job_that_waits_is_cancelled_at_once(place: World) -> None:
    first, second = held(place, ("a.txt", b"first"), ("b.txt", b"second"))
    client = place.client()
    assert client.post(f"/v1/jobs/{second['id']}/cancel").json()["state"] == "cancelled"
    place.encoder.may.set()
    assert ended(client, first)["state"] == "done"
    assert [one.source for one in place.store.sources()] == ["a.txt"]
    again = client.post(f"/v1/jobs/{first['id']}/cancel")
    assert (again.status_code, again.json()["state"]) == (200, "done")


def test_what_was_cancelled_or_failed_is_tried_again(place: World, tmp_path: Path) -> None:
    (job,) = held(place, ("a.txt", b"first"))
    client = place.client()
    client.post(f"/v1/jobs/{job['id']}/cancel")
    place.encoder.may.set()
    assert ended(client, job)["state"] == "cancelled"
    assert len(place.files()) == 1, "the file is kept"
    again = client.post(f"/v1/jobs/{job['id']}/retry").json()
    assert (again["id"], again["error"], again["finished"]) == (job["id"], None, None)
    assert ended(client, job)["state"] == "done"
    assert place.files() == []
    over = client.post(f"/v1/jobs/{job['id']}/retry")
    assert over.status_code == 400
    assert over.json()["error"]["message"] == "a job that is done cannot be tried again"


def test_a_failure_ends_one_job_only(place: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client, real = place.client(), place.store.add

    def add(*items: Any, **rest: Any) -> Any:
        if items[0].name == "bad.txt":
            raise ZeroDivisionError("what the text said")
        return real(*items, **rest)

    monkeypatch.setattr(place.service.jobs.intake._store, "add", add)
    bad, good = sent(client, ("bad.txt", b"first"), ("good.txt", b"second"))
    error = ended(client, bad)["error"]
    assert (error["kind"], "what the text said" in json.dumps(error)) == ("internal", False)
    assert ended(client, good)["state"] == "done"


def test_the_same_upload_twice_at_once_is_one_job(place: World) -> None:
    (first,) = held(place, ("a.txt", b"first"))
    client = place.client()
    (same,) = sent(client, ("a.txt", b"first"))
    (waiting,) = sent(client, ("a.txt", b"other"))
    twice = sent(client, ("b.txt", b"one"), ("b.txt", b"one"), ("b.txt", b"two"))
    assert same["id"] == first["id"]
    assert waiting["id"] != first["id"]
    assert twice[0]["id"] == twice[1]["id"] != twice[2]["id"]
    place.encoder.may.set()
    assert [ended(client, j)["outcome"] for j in (first, waiting)] == ["added", "updated"]
    assert [ended(client, j)["outcome"] for j in twice] == ["added", "added", "updated"]
    assert len(client.get("/v1/jobs").json()["jobs"]) == 4


def test_the_same_upload_by_another_is_another_job(place: World) -> None:
    one, other = place.key("a", "write"), place.key("a", "write")
    place.encoder.hold()
    (first,) = sent(one, ("a.txt", b"first"))
    (second,) = sent(other, ("a.txt", b"first"))
    place.encoder.may.set()
    assert first["id"] != second["id"]
    assert [ended(one, first)["outcome"], ended(other, second)["outcome"]] == ["added", "unchanged"]


def test_only_owners_and_admins_are_told_of_jobs(place: World) -> None:
    admin, staff = place.key("a", "admin"), place.key("s", "write", labels=("staff",))
    reader, other = place.key("r", "read", labels=("staff",)), place.key("o", "write")
    job = uploaded(staff, "layoffs.txt", b"words", access="staff")
    for client in (reader, other):
        assert client.get("/v1/jobs").json() == {"jobs": []}
        hidden, none = (client.get(f"/v1/jobs/{id_}") for id_ in (job["id"], "0" * 16))
        assert hidden.status_code == 404
        assert hidden.text == none.text
    assert other.post(f"/v1/jobs/{job['id']}/cancel").status_code == 404
    assert other.post(f"/v1/jobs/{job['id']}/retry").status_code == 404
    assert reader.post(f"/v1/jobs/{job['id']}/cancel").status_code == 403
    assert [one["id"] for one in admin.get("/v1/jobs").json()["jobs"]] == [job["id"]]


def test_a_stop_leaves_work_to_the_next_start(tmp_path: Path) -> None:
    with world(tmp_path) as place:
        jobs = held(place, ("long.md", LONG.encode()), ("b.txt", b"second"))
        threading.Timer(0.2, place.encoder.may.set).start()
    with LedgerOf(tmp_path) as ledger:
        assert [job["state"] for job in ledger.jobs()] == ["waiting", "waiting"]
    with world(tmp_path) as place:
        client = place.client()
        assert [ended(client, job)["state"] for job in jobs] == ["done", "done"]
        assert [one.source for one in place.store.sources()] == ["b.txt", "long.md"]
        assert place.files() == []


class LedgerOf:
    """The ledger of a folder, for a look."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger(folder / "knowledge" / "uploads")

    def __enter__(self) -> Ledger:
        return self.ledger

    def __exit__(self, *_: object) -> None:
        self.ledger.close()


_KILLED = """
import sys, threading
from pathlib import Path
from tests.serving.world import HeldEncoder, sent, world

with world(Path(sys.argv[1])) as place:
    place.encoder.hold()
    sent(place.client(), ("a.txt", b"first words"), ("b.txt", b"second words"))
    assert place.encoder.asked.wait(30)
    print("running", flush=True)
    threading.Event().wait()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_a_kill_leaves_work_to_the_next_start(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path.cwd()
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"running\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    uploads = tmp_path / "knowledge" / "uploads"
    (uploads / ("0" * 32 + ".part")).write_bytes(b"half of an upload")
    (uploads / ("0" * 64)).write_bytes(b"a file that nobody wants")
    with world(tmp_path) as place:
        client = place.client()
        jobs = client.get("/v1/jobs").json()["jobs"]
        assert [ended(client, job)["state"] for job in jobs] == ["done", "done"]
        assert [one.source for one in place.store.sources()] == ["a.txt", "b.txt"]
        assert place.files() == []


def test_what_a_user_cancelled_is_not_gone_on_with(tmp_path: Path) -> None:
    with world(tmp_path) as place:
        (job,) = held(place, ("long.md", LONG.encode()))
        place.client().post(f"/v1/jobs/{job['id']}/cancel")
        threading.Timer(0.2, place.encoder.may.set).start()
    with world(tmp_path) as place:
        assert place.client().get(f"/v1/jobs/{job['id']}").json()["state"] == "cancelled"


def test_a_damaged_list_says_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "knowledge" / "uploads"
    with world(tmp_path):
        pass
    (folder / FILE).write_bytes(b"nothing of a database" * 100)
    with pytest.raises(DamagedError) as caught, world(tmp_path):
        pass
    assert caught.value.hint == f"rm {folder / FILE}: the queue is lost, the knowledge base is not"


def test_as_much_waits_as_there_is_room_for(tmp_path: Path) -> None:
    limits = BacklogLimits(waiting=2, waiting_bytes=20)
    with world(tmp_path, backlog=limits) as place:
        held(place, ("a.txt", b"first"))
        client = place.client()
        sent(client, ("b.txt", b"1"))
        files = [("files", (name, b"2")) for name in ("c.txt", "d.txt")]
        full = client.post("/v1/documents", files=files)
        assert (full.status_code, full.headers["retry-after"]) == (503, "30")
        assert full.json()["error"]["message"] == "1 files are waiting already"
        large = client.post("/v1/documents", files=[("files", ("e.txt", b"3" * 21))])
        assert large.status_code == 503
        assert len(place.files()) == 2, "nothing of what was refused is kept"
        place.encoder.may.set()


def test_history_and_the_files_in_it_are_bounded(tmp_path: Path) -> None:
    limits = BacklogLimits(history=3, kept_bytes=10)
    with world(tmp_path, backlog=limits) as place:
        client = place.client()
        jobs = [uploaded(client, f"{n}.exe", str(n).encode() * 6) for n in range(5)]
        assert [one["name"] for one in client.get("/v1/jobs").json()["jobs"]] == [
            "2.exe",
            "3.exe",
            "4.exe",
        ]
        assert len(place.files()) == 1
        gone = client.post(f"/v1/jobs/{jobs[2]['id']}/retry")
        assert gone.json()["error"]["message"] == "the file is no longer here"
        assert client.post(f"/v1/jobs/{jobs[4]['id']}/retry").status_code == 200
    with world(tmp_path, backlog=limits) as place:
        assert len(place.client().get("/v1/jobs").json()["jobs"]) == 3


def test_jobs_are_watched_by_those_who_may(place: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consilience.serving.following.LONGEST", 2.0)
    monkeypatch.setattr("consilience.serving.following.LOOK_EVERY", 0.1)
    mine, other = place.key("a", "write"), place.key("b", "read")
    before = uploaded(mine, "a.txt", b"first words")
    later: list[dict[str, Any]] = []
    timer = threading.Timer(0.5, lambda: later.extend(sent(mine, ("b.txt", b"second words"))))
    timer.start()
    found = events_of(mine.get("/v1/jobs/events").text)
    timer.join()
    assert {name for name, _ in found} == {"job"}
    assert found[0][1] == before
    states = [job["state"] for _, job in found if job["id"] == later[0]["id"]]
    assert states[-1] == "done"
    assert events_of(other.get("/v1/jobs/events").text) == []
    assert place.service.jobs.backlog._listeners == [], "whoever has gone is not told"


def test_watching_ends_when_the_server_stops(place: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consilience.serving.following.LOOK_EVERY", 0.1)
    threading.Timer(0.5, place.service.gates.close).start()
    assert place.client().get("/v1/jobs/events").status_code == 200


def test_a_vector_of_another_encoder_is_told(tmp_path: Path) -> None:
    with world(tmp_path) as place:
        uploaded(place.client(), "a.txt", b"first")
        place.encoder.fingerprint = "another-encoder-0002"
        job = uploaded(place.client(), "b.txt", b"second")
        assert job["error"]["kind"] == "fingerprint"


def test_many_small_files_all_arrive(place: World) -> None:
    client = place.client()
    jobs = sent(client, *((f"{n}.txt", f"number {n}".encode()) for n in range(60)))
    assert {ended(client, job)["state"] for job in jobs} == {"done"}
    assert len(place.store) == 60


def test_an_upload_while_others_are_read_is_safe(place: World) -> None:
    client = place.client()
    jobs: list[dict[str, Any]] = []

    def send(n: int) -> None:
        for m in range(5):
            jobs.extend(sent(client, (f"{n}-{m}.pdf", samples.lines_pdf([f"file {n} {m}"]))))

    threads = [threading.Thread(target=send, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {ended(client, job)["state"] for job in jobs} == {"done"}
    assert len(place.files()) == 20
    until(lambda: not place.service.jobs.backlog._running)
    assert isinstance(place.encoder, HeldEncoder)
