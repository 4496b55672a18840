"""Documents over HTTP: brought in, listed, read, shown and deleted, by those who may."""

import io
import json
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from consilience.serving.subjects import OWNER
from consilience.store import AddOptions, Store
from tests.documents import samples
from tests.serving.world import World, ended, sent, until, uploaded, world

LEAVE = "Staff get five days of leave a year. Requests go to the office."
SAFE = "The safe opens with the word heliotrope."


@pytest.fixture
def place(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as opened:
        yield opened


def sources(place: World) -> list[str]:
    return [one.source for one in place.store.sources()]


def test_an_upload_becomes_a_document_under_its_name(place: World) -> None:
    client = place.client()
    job = uploaded(client, "handbook.md", LEAVE.encode())
    assert (job["state"], job["outcome"], job["passages"]) == ("done", "added", 1)
    assert (job["done_bytes"], job["total_bytes"]) == (len(LEAVE), len(LEAVE))
    assert (job["name"], job["kind"], job["error"]) == ("handbook.md", "document", None)
    (passage,) = place.store.passages([1]).values()
    assert (passage.source, passage.text) == ("handbook.md", LEAVE)
    assert place.files() == [], "only originals of PDF are kept"


def test_every_format_is_read_as_on_the_command_line(place: World, tmp_path: Path) -> None:
    client, made = place.client(), samples.one_of_each()
    jobs = sent(client, *made.items())
    assert [ended(client, job)["state"] for job in jobs] == ["done"] * len(made)
    folder = tmp_path / "same"
    folder.mkdir()
    for name, data in made.items():
        (folder / name).write_bytes(data)
    with Store.open(tmp_path / "other", encoder=place.encoder) as other:
        other.add(folder)
        texts = {
            one.source.rpartition("/")[2]: other.document(one.source).text
            for one in other.sources()
        }
    assert {name: place.store.document(name).text for name in sources(place)} == texts


def test_the_same_again_is_unchanged_and_other_bytes_replace(place: World) -> None:
    client = place.client()
    assert uploaded(client, "a.txt", b"first words")["outcome"] == "added"
    assert uploaded(client, "a.txt", b"first words")["outcome"] == "unchanged"
    assert uploaded(client, "a.txt", b"second words")["outcome"] == "updated"
    assert [p.text for p in place.store.passages([1, 2]).values()] == ["second words"]


def test_what_cannot_be_read_fails_with_its_reason(place: World) -> None:
    client = place.client()
    job = uploaded(client, "scan.pdf", samples.encrypted_pdf())
    assert (job["state"], job["finished"] is None) == ("failed", False)
    assert job["error"] == {
        "kind": "document",
        "message": "encrypted: it opens only with a password",
        "hint": "save it without a password",
    }
    other = uploaded(client, "run.exe", b"MZ")
    assert other["error"]["message"] == "unknown format: no reader for .exe"
    assert sources(place) == []


def test_a_pruning_command_leaves_uploads_alone(
    place: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded(place.client(), "kept.md", LEAVE.encode())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.txt").write_text("a file on disk")
    report = place.store.add(Path("here.txt"), Path(), options=AddOptions(prune=True))
    assert (report.removed, sources(place)) == ([], ["here.txt", "kept.md"])


def test_labels_and_contributor_come_with_the_form(place: World) -> None:
    client = place.client()
    uploaded(client, "a.txt", b"words", access=["staff", "board"], contributor="ward 3")
    (one,) = place.store.sources()
    assert (one.access, one.contributor) == (("board", "staff"), "ward 3")


def test_documents_are_listed_in_pages_and_searched(place: World) -> None:
    client = place.client()
    for name in ("a.txt", "B.txt", "年假.txt"):
        uploaded(client, name, name.encode())
    whole = client.get("/v1/documents").json()
    assert [one["source"] for one in whole["documents"]] == ["B.txt", "a.txt", "年假.txt"]
    assert whole["documents"][1] == {
        "source": "a.txt",
        "title": "a",
        "language": "en",
        "contributor": "",
        "access": [],
        "characters": 5,
        "passages": 1,
        "original": False,
    }
    part = client.get("/v1/documents", params={"offset": 1, "limit": 1}).json()
    assert ([one["source"] for one in part["documents"]], part["total"]) == (["a.txt"], 3)
    found = client.get("/v1/documents", params={"query": "b.TXT"}).json()
    assert ([one["source"] for one in found["documents"]], found["total"]) == (["B.txt"], 1)


def test_a_text_is_read_in_stretches(place: World) -> None:
    client = place.client()
    uploaded(client, "a.txt", "年假五天，逾期作废。".encode())
    found = client.get("/v1/documents/text", params={"source": "a.txt", "start": 2, "end": 4})
    assert found.json() == {
        "source": "a.txt",
        "title": "a",
        "text": "五天",
        "start": 2,
        "end": 4,
        "total": 10,
        "pages": [],
    }
    assert client.get("/v1/documents/text", params={"source": "a.txt"}).json()["end"] == 10
    beyond = client.get("/v1/documents/text", params={"source": "a.txt", "start": 11})
    assert beyond.status_code == 400
    assert (
        beyond.json()["error"]["message"] == "there is no stretch from 11 to None in 10 characters"
    )


def test_what_is_hidden_is_not_there(place: World) -> None:
    staff, guest = place.key("a", "write", labels=("staff",)), place.key("b", "write", labels=())
    uploaded(staff, "safe.pdf", samples.lines_pdf([SAFE]), access="staff")
    assert [one["source"] for one in staff.get("/v1/documents").json()["documents"]] == ["safe.pdf"]
    assert guest.get("/v1/documents").json() == {"documents": [], "total": 0}
    asked = {"source": "safe.pdf", "page": 1, "start": 0, "end": 5}
    for path in ("text", "page", "page/boxes"):
        assert staff.get(f"/v1/documents/{path}", params=asked).status_code == 200
        hidden = guest.get(f"/v1/documents/{path}", params=asked)
        none = guest.get(f"/v1/documents/{path}", params=asked | {"source": "none.pdf"})
        assert (hidden.status_code, none.status_code) == (404, 404)
        assert hidden.text.replace("safe.pdf", "none.pdf") == none.text
    deleted = guest.delete("/v1/documents", params={"source": "safe.pdf"})
    assert deleted.status_code == 404
    assert deleted.json()["error"]["hint"] == "GET /v1/documents lists them"
    assert sources(place) == ["safe.pdf"]


def test_nobody_replaces_what_is_hidden_from_them(place: World) -> None:
    admin, guest = place.key("a", "admin"), place.key("b", "write", labels=())
    uploaded(admin, "safe.txt", SAFE.encode(), access="staff")
    job = uploaded(guest, "safe.txt", b"nothing to see")
    assert (job["state"], job["error"]["message"]) == ("failed", "its name cannot be used here")
    assert place.store.document("safe.txt").text == SAFE
    line = json.dumps({"text": "mine", "source": "safe.txt"}).encode()
    other = uploaded(guest, "b.jsonl", line)
    message = "the source 'safe.txt' is already in the store"
    assert (other["error"]["message"], other["error"]["hint"]) == (message, "")
    told = uploaded(admin, "c.jsonl", line)["error"]
    assert told["message"] == f"{message}, from 'safe.txt'"


def test_labels_and_names_are_given_by_those_who_have_them(place: World) -> None:
    staff = place.key("ward", "write", labels=("staff",))
    files = [("files", ("a.txt", b"words"))]
    foreign = staff.post("/v1/documents", files=files, data={"access": "board"})
    assert (foreign.status_code, foreign.json()["error"]["kind"]) == (403, "forbidden")
    forged = staff.post("/v1/documents", files=files, data={"contributor": "finance"})
    assert forged.status_code == 403
    assert forged.json()["error"]["hint"] == "leave contributor out: it is 'ward'"
    uploaded(staff, "a.txt", b"words", contributor="ward")
    assert place.store.sources()[0].contributor == "ward"
    reader = place.key("r", "read")
    assert reader.post("/v1/documents", files=files).status_code == 403
    assert reader.delete("/v1/documents", params={"source": "a.txt"}).status_code == 403


def test_deleting_takes_everything_along(place: World) -> None:
    client = place.client()
    uploaded(client, "a.pdf", samples.lines_pdf(["Some words"]))
    uploaded(client, "b.txt", b"other words")
    assert len(place.files()) == 1
    assert (
        client.get("/v1/documents/page", params={"source": "a.pdf", "page": 1}).status_code == 200
    )
    found = client.delete("/v1/documents", params={"source": "a.pdf"}).json()
    assert (found["removed"], found["passages"], found["cancelled"]) == (["a.pdf"], 1, [])
    assert (sources(place), place.files()) == (["b.txt"], [])
    assert place.service.jobs.pictures._kept == {}
    assert (
        client.get("/v1/documents/page", params={"source": "a.pdf", "page": 1}).status_code == 404
    )
    assert client.delete("/v1/documents", params={"source": "a.pdf"}).status_code == 404


def test_deleting_a_file_of_records_spares_what_is_hidden(place: World) -> None:
    admin, guest = place.key("a", "admin"), place.key("b", "write", labels=())
    records = samples.jsonl({"text": "open", "id": "1"}, {"text": SAFE, "access": ["staff"]})
    uploaded(admin, "facts.jsonl", records)
    found = guest.delete("/v1/documents", params={"source": "facts.jsonl"}).json()
    assert found["removed"] == ["facts.jsonl#1"]
    assert sources(place) == ["facts.jsonl#2"]


def test_a_folder_is_deleted_by_its_name(place: World, tmp_path: Path) -> None:
    for name in ("x", "y"):
        path = tmp_path / "docs" / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    place.store.add(tmp_path / "docs")
    folder = f"{(tmp_path / 'docs').as_posix()}/"
    found = place.client().delete("/v1/documents", params={"source": folder}).json()
    assert (found["passages"], sources(place)) == (2, [])


def test_deleting_stops_the_job_and_nothing_comes_back(place: World) -> None:
    client = place.client()
    uploaded(client, "a.txt", b"first words")
    place.encoder.hold()
    (running,) = sent(client, ("a.txt", b"second words"))
    assert place.encoder.asked.wait(30)
    (waiting,) = sent(client, ("a.txt", b"third words"))
    threading.Timer(0.3, place.encoder.may.set).start()  # while the deletion waits for the job
    found = client.delete("/v1/documents", params={"source": "a.txt"}).json()
    assert sorted(found["cancelled"]) == sorted([running["id"], waiting["id"]])
    assert found["removed"] == ["a.txt"]
    assert [ended(client, job)["state"] for job in (running, waiting)] == ["cancelled"] * 2
    assert (sources(place), len(place.store), place.files()) == ([], 0, [])


def test_deleting_what_is_only_waited_for_stops_that(place: World) -> None:
    client = place.client()
    place.encoder.hold()
    (first,) = sent(client, ("a.txt", b"first words"))
    assert place.encoder.asked.wait(30)
    (second,) = sent(client, ("b.txt", b"second words"))
    found = client.delete("/v1/documents", params={"source": "b.txt"}).json()
    assert (found["removed"], found["cancelled"]) == ([], [second["id"]])
    place.encoder.may.set()
    assert ended(client, first)["state"] == "done"
    assert sources(place) == ["a.txt"]
    assert client.post(f"/v1/jobs/{second['id']}/retry").status_code == 400


def test_what_commits_although_it_was_deleted_is_removed_again(
    place: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consilience.serving.routes.documents.STOPPING_SECONDS", 0.0)
    client, real = place.client(), place.store.add
    intake, backlog = place.service.jobs.intake, place.service.jobs.backlog

    def add(*items: object, **rest: object) -> object:
        report = real(*items, **rest)  # type: ignore[arg-type]
        assert len(intake.withdraw(OWNER, "a.pdf")) == 1
        return report

    monkeypatch.setattr(intake._store, "add", add)
    job = uploaded(client, "a.pdf", samples.lines_pdf(["Some words"]))
    assert job["state"] == "cancelled"
    until(lambda: not backlog.is_running([job["id"]]))
    assert (sources(place), place.files()) == ([], [])


def test_an_original_is_dropped_when_the_store_has_something_else(
    place: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = place.client()
    uploaded(client, "a.pdf", samples.lines_pdf(["Some words"]))
    shown = client.get("/v1/documents/page", params={"source": "a.pdf", "page": 1})
    assert shown.status_code == 200
    monkeypatch.chdir(tmp_path)
    Path("a.pdf").write_bytes(samples.lines_pdf(["Other words"]))
    place.store.add("a.pdf")
    assert (
        client.get("/v1/documents/page", params={"source": "a.pdf", "page": 1}).status_code == 404
    )
    assert place.files() == []


def test_originals_of_what_was_removed_meanwhile_go_at_the_next_start(tmp_path: Path) -> None:
    with world(tmp_path) as place:
        uploaded(place.client(), "a.pdf", samples.lines_pdf(["Some words"]))
        uploaded(place.client(), "b.pdf", samples.lines_pdf(["Other words"]))
        assert len(place.files()) == 2
        place.store.remove("a.pdf")
    with world(tmp_path) as place:
        assert len(place.files()) == 1
        listed = place.client().get("/v1/documents").json()["documents"]
        assert [(one["source"], one["original"]) for one in listed] == [("b.pdf", True)]


def pixels(png: bytes) -> tuple[int, int, bytes]:
    """Width, height and the rows of a picture whose rows are not filtered."""
    width, height = struct.unpack(">II", png[16:24])
    data, at = b"", 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : at + 8 + length]
        at += length + 12
    return width, height, zlib.decompress(data)


def test_a_page_is_drawn_as_wide_as_asked(place: World) -> None:
    client = place.client()
    uploaded(client, "a.pdf", samples.pdf([[samples.ENGLISH], [samples.CHINESE]]))
    asked = {"source": "a.pdf", "page": 2, "width": 300}
    found = client.get("/v1/documents/page", params=asked)
    assert found.headers["content-type"] == "image/png"
    width, height, rows = pixels(found.content)
    assert (width, height) == (300, round(300 * 842 / 595))
    assert len(rows) == height * (1 + 3 * width)
    assert b"\xff\xff\xff" * 50 in rows
    assert any(rows[at] < 100 for at in range(1, len(rows), 1 + 3 * width)) is False, "the margin"
    assert sum(value < 200 for value in rows) > height + 1000, "the filter bytes and the letters"
    assert client.get("/v1/documents/page", params=asked).content == found.content
    for width in (99, 2001):
        assert client.get("/v1/documents/page", params=asked | {"width": width}).status_code == 422
    beyond = client.get("/v1/documents/page", params=asked | {"page": 3})
    assert (beyond.status_code, beyond.json()["error"]["message"]) == (
        422,
        "has no page 3: it has 2",
    )


def test_colours_and_odd_pages_come_out_right(place: World) -> None:
    client = place.client()
    uploaded(client, "red.pdf", samples.raw_pdf(b"1 0 0 rg 0 0 612 792 re f BT /F 9 Tf (x) Tj ET"))
    found = client.get("/v1/documents/page", params={"source": "red.pdf", "page": 1, "width": 100})
    assert pixels(found.content)[2][1:4] == b"\xff\x00\x00"
    long = samples.lines_pdf(["x"]).replace(b"[0 0 612 792]", b"[0 0 20 14000]".ljust(13))
    uploaded(client, "long.pdf", long)
    asked = {"source": "long.pdf", "page": 1, "width": 2000}
    width, height, _ = pixels(client.get("/v1/documents/page", params=asked).content)
    assert width * height <= 12_100_000
    assert width < 200


def test_cited_characters_are_found_on_the_page(place: World) -> None:
    import pypdfium2

    client = place.client()
    data = samples.pdf([[samples.ENGLISH, samples.FEES], [samples.CHINESE]])
    uploaded(client, "a.pdf", data)
    document = place.store.document("a.pdf")
    for number, cited in ((1, "closes at 20:00"), (1, "X-ray"), (2, "二十点关闭")):
        start = document.text.index(cited)
        asked = {"source": "a.pdf", "page": number, "start": start, "end": start + len(cited)}
        found = client.get("/v1/documents/page/boxes", params=asked).json()
        assert found["complete"]
        (box,) = found["boxes"]
        page = pypdfium2.PdfDocument(io.BytesIO(data))[number - 1]
        width, height = page.get_size()
        left, top, right, bottom = (
            edge * side for edge, side in zip(box, (width, height) * 2, strict=True)
        )
        shown = page.get_textpage().get_text_bounded(
            left - 0.5, height - bottom - 0.5, right + 0.5, height - top + 0.5
        )
        assert shown.strip() == cited


def test_documents_that_did_not_come_as_an_upload_have_no_page(
    place: World, tmp_path: Path
) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(samples.lines_pdf(["Some words"]))
    place.store.add(path)
    asked = {"source": path.as_posix(), "page": 1, "start": 0, "end": 1}
    for kind in ("page", "page/boxes"):
        assert place.client().get(f"/v1/documents/{kind}", params=asked).status_code == 404
    uploaded(place.client(), "b.txt", b"plain words")
    asked["source"] = "b.txt"
    assert place.client().get("/v1/documents/page", params=asked).status_code == 404
