"""Uploads: whatever a browser or a program sends wrong is refused, and leaves nothing behind."""

import json
import socket
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from consilience.errors import UsageError
from consilience.serving import uploads
from consilience.serving.naming import LONGEST_NAME, display_name
from tests.serving.world import World, until, uploaded, world


@pytest.fixture
def place(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as opened:
        yield opened


NAMES = {
    "handbook.pdf": "handbook.pdf",
    "../../etc/passwd.txt": "passwd.txt",
    "/etc/passwd.txt": "passwd.txt",
    "C:\\reports\\2026.pdf": "2026.pdf",
    "C:2026.pdf": "C:2026.pdf",
    "\\\\server\\share\\a.txt": "a.txt",
    "..\\..\\a.txt": "a.txt",
    "a/../b.txt": "b.txt",
    "  two   blanks .txt ": "two blanks .txt",
    "re\u0301sume\u0301.txt": "résumé.txt",
    "report\u202efdp.exe": "reportfdp.exe",
    "\u2066a\u2069\ufeff.txt": "a.txt",
    "a\u200b\u00adb.txt": "ab.txt",
    "年假 规定.docx": "年假 规定.docx",
    "👩\u200d💻.md": "👩\u200d💻.md",
    "می\u200cخواهم.txt": "می\u200cخواهم.txt",
    "tag\U000e0041.txt": "tag.txt",
    ".hidden.txt": ".hidden.txt",
    "-rf.txt": "-rf.txt",
    "%2e%2e%2fa.txt": "%2e%2e%2fa.txt",
    "a\uff0fb.txt": "a\uff0fb.txt",
    "CON": "CON",
    "no\u00a0break.txt": "no break.txt",
}


@pytest.mark.parametrize(("given_name", "shown"), NAMES.items())
def test_a_name_is_something_to_show(given_name: str, shown: str) -> None:
    assert display_name(given_name) == shown


@pytest.mark.parametrize(
    ("given_name", "message"),
    [
        ("", "a file came without a name"),
        ("..", "a file came without a name"),
        ("a/", "a file came without a name"),
        ("\u202e", "a file came without a name"),
        (" . ", "a file came without a name"),
        ("a\0.txt", "the name of a file holds U+0000 at place 2, which cannot be shown"),
        ("a\n.txt", "the name of a file holds U+000A at place 2, which cannot be shown"),
        ("\x1b[31m.txt", "the name of a file holds U+001B at place 1, which cannot be shown"),
        ("a\u2028.txt", "the name of a file holds U+2028 at place 2, which cannot be shown"),
        ("\ud800.txt", "the name of a file holds U+D800 at place 1, which cannot be shown"),
        ("x" * 201, "the name of a file has 201 characters, allowed are 200"),
    ],
)
def test_a_name_that_cannot_be_shown_is_refused(given_name: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        display_name(given_name)
    assert (caught.value.message, caught.value.hint) == (
        message,
        "rename the file, and send it again",
    )


# Any text hardly ever has the few characters that a name must not keep.
@given(st.text(max_size=250) | st.text("/\\.\u202e\u0301 e", max_size=20))
def test_no_name_is_a_path_and_each_is_stable(text: str) -> None:
    try:
        name = display_name(text)
    except UsageError:
        return
    assert not set(name) & set("/\\\0\n\r")
    assert name.strip(". ")
    assert len(name) <= LONGEST_NAME
    assert unicodedata.is_normalized("NFC", name)
    assert display_name(name) == name
    assert not any(unicodedata.bidirectional(c) in ("RLO", "LRO", "RLE", "LRE") for c in name)


def form(*parts: bytes, end: bytes = b"--edge--\r\n") -> bytes:
    return b"".join(b"--edge\r\n" + part + b"\r\n" for part in parts) + end


def part(name: str, data: bytes, *, filename: str | None = None, more: bytes = b"") -> bytes:
    described = f'Content-Disposition: form-data; name="{name}"'
    if filename is not None:
        described += f'; filename="{filename}"'
    return described.encode() + b"\r\n" + more + b"\r\n" + data


def post(
    place: World, body: bytes, kind: str = "multipart/form-data; boundary=edge"
) -> httpx.Response:
    return place.client().post("/v1/documents", content=body, headers={"Content-Type": kind})


A_FILE = part("files", b"words", filename="a.txt")
MANY = b"X-Header: 1\r\n" * 10
FORM_HINT = "send a form as multipart/form-data, with the files in the field files"
REFUSED = {
    "no form": (b"{}", "application/json", 400, "the request is no form"),
    "no boundary": (form(A_FILE), "multipart/form-data", 400, "the request is no form"),
    "long boundary": (
        form(A_FILE),
        f"multipart/form-data; boundary={'x' * 71}",
        400,
        "the request is no form",
    ),
    "empty": (b"", "", 400, "the form is broken or incomplete"),
    "noise": (b"\0" * 5000, "", 400, "the form is broken or incomplete"),
    "cut off": (form(A_FILE)[:-30], "", 400, "the form is broken or incomplete"),
    "cut off before the end": (form(A_FILE, end=b""), "", 400, "the form is broken or incomplete"),
    "no file": (
        form(part("access", b"staff")),
        "",
        400,
        "the form has no file in the field 'files'",
    ),
    "another field": (
        form(part("upload", b"x", filename="a.txt")),
        "",
        400,
        "a file came in the field 'upload'",
    ),
    "no name of a field": (
        form(b"Content-Disposition: form-data\r\n\r\nx"),
        "",
        400,
        "the form is broken or incomplete",
    ),
    "no disposition": (form(b"A: b\r\n\r\nx"), "", 400, "the form is broken or incomplete"),
    "empty name": (
        form(part("files", b"x", filename="")),
        "",
        400,
        "a file came without a name",
    ),
    "a name in no encoding": (
        form(A_FILE.replace(b"a.txt", b"\xff\xfe.txt")),
        "",
        400,
        "the name of a file is not UTF-8",
    ),
    "a field in no encoding": (
        form(A_FILE, part("access", b"\xff")),
        "",
        400,
        "the field 'access' is not UTF-8",
    ),
    "many headers": (
        form(part("files", b"x", filename="a.txt", more=MANY)),
        "",
        400,
        "the form is broken or incomplete",
    ),
    "a long header": (
        form(part("files", b"x", filename="a" * 5000)),
        "",
        400,
        "the form is broken or incomplete",
    ),
    "a long field": (
        form(part("access", b"x" * 5000), A_FILE),
        "",
        413,
        "the field 'access' has more than 4096 bytes",
    ),
    "many fields": (
        form(A_FILE, *[part("access", b"a")] * 200),
        "",
        413,
        "the form has too many parts",
    ),
    "an unknown field": (
        form(A_FILE, part("colour", b"red")),
        "",
        400,
        "there is no field 'colour'",
    ),
    "a field twice": (
        form(A_FILE, part("contributor", b"a"), part("contributor", b"b")),
        "",
        400,
        "the field 'contributor' is there 2 times",
    ),
    "a label with a line break": (
        form(A_FILE, part("access", b"a\nb")),
        "",
        400,
        "the field 'access' is no plain text of at most 100 characters",
    ),
    "too many labels": (
        form(A_FILE, *[part("access", f"label {n}".encode()) for n in range(51)]),
        "",
        400,
        "there are 51 labels",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_refused_and_nothing_is_left(place: World, case: str) -> None:
    body, kind, status, message = REFUSED[case]
    found = post(place, body, kind or "multipart/form-data; boundary=edge")
    assert (found.status_code, found.json()["error"]["message"]) == (status, message)
    if message == "the request is no form":
        assert found.json()["error"]["hint"] == FORM_HINT
    assert place.files() == []
    assert place.client().get("/v1/jobs").json()["jobs"] == []


def test_one_bad_part_refuses_the_whole_form(place: World) -> None:
    good = [part("files", b"words", filename=f"{n}.txt") for n in range(3)]
    found = post(place, form(*good, part("files", b"x", filename="..")))
    assert found.status_code == 400
    assert place.files() == []


def test_files_are_counted_and_measured(tmp_path: Path) -> None:
    limits = {"limits": {"longest_upload": 1000, "upload_files": 2}}
    with world(tmp_path, **limits) as place:
        three = post(place, form(A_FILE, A_FILE, A_FILE))
        assert three.status_code == 413, place.lines
        assert three.json()["error"]["message"] == "the form has more than 2 files"
        large = post(place, form(part("files", b"x" * 1001, filename="a.txt")))
        assert (large.status_code, large.json()["error"]["kind"]) == (413, "too_large")

        def pieces() -> Iterator[bytes]:
            yield form(part("files", b"", filename="a.txt"), end=b"")
            for _ in range(50):
                yield b"y" * 100

        kind = {"Content-Type": "multipart/form-data; boundary=edge"}
        chunked = place.client().post("/v1/documents", content=pieces(), headers=kind)
        assert (chunked.status_code, chunked.json()["error"]["kind"]) == (413, "too_large")
        assert place.files() == []


def feed(receiver: uploads.Receiver, body: bytes, size: int) -> None:
    """Hand a form over in pieces of so many bytes."""
    for start in range(0, len(body), size):
        receiver.feed(body[start : start + size])


@pytest.mark.parametrize("size", [1, 8, 1000])
def test_a_file_alone_is_measured_too(tmp_path: Path, size: int) -> None:
    limits = uploads.UploadLimits(files=1, file_bytes=10)
    receiver = uploads.Receiver("multipart/form-data; boundary=edge", tmp_path, "files", limits)
    body = form(part("files", b"12345678901", filename="a.txt"))
    with pytest.raises(uploads.TooLargeError) as caught:
        feed(receiver, body, size)
    assert caught.value.message == "'a.txt' has more than 10 bytes"
    receiver.discard()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_form_may_come_in_any_pieces(tmp_path: Path, size: int) -> None:
    body = form(
        part("access", "员工".encode()),
        part("files", b"\r\n--edg\r\n--edge-\0" * 50, filename="年假.txt"),
        part("files", b"", filename="empty.txt"),
    )
    limits = uploads.UploadLimits(files=2, file_bytes=10_000)
    receiver = uploads.Receiver("multipart/form-data; boundary=edge", tmp_path, "files", limits)
    feed(receiver, body, size)
    found = receiver.finish()
    assert [(one.name, one.size) for one in found.files] == [("年假.txt", 850), ("empty.txt", 0)]
    assert found.files[0].path.read_bytes() == b"\r\n--edg\r\n--edge-\0" * 50
    assert found.fields == {"access": ("员工",)}
    assert all(len(one.path.name) == 32 + len(".part") for one in found.files)
    receiver.discard()
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_outside_of_the_folder(place: World, tmp_path: Path) -> None:
    before = {path for path in tmp_path.rglob("*") if "uploads" not in path.parts}
    for name in ("../../evil.txt", "/tmp/evil.txt", "C:\\evil.txt", "a%00.txt", "~/evil.txt"):
        uploaded(place.client(), name, b"words of evil")
    after = {path for path in tmp_path.rglob("*") if "uploads" not in path.parts}
    assert {path.name for path in after - before} <= {"store.sqlite3-wal", "store.sqlite3-shm"}
    assert [one.source for one in place.store.sources()] == ["a%00.txt", "evil.txt"]


def test_a_full_disk_is_told_and_leaves_nothing(
    place: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object, data: memoryview) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(uploads._Incoming, "take", full)
    found = post(place, form(A_FILE))
    assert found.status_code == 500
    assert found.json()["error"]["message"] == (
        "the upload could not be kept: No space left on device"
    )
    assert place.files() == []


def test_files_are_for_their_owner_only(place: World) -> None:
    place.encoder.hold()
    post(place, form(A_FILE))
    folder = place.service.jobs.shelf.folder
    (name,) = place.files()
    assert (folder / name).stat().st_mode & 0o077 == 0
    assert folder.stat().st_mode & 0o077 == 0
    place.encoder.may.set()


@contextmanager
def listening(place: World) -> Iterator[int]:
    """The service behind a socket."""
    config = uvicorn.Config(place.app, host="127.0.0.1", port=0, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)


HEAD = (
    b"POST /v1/documents HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    b"Content-Type: multipart/form-data; boundary=edge\r\n"
)


def test_an_upload_that_breaks_off_leaves_nothing(place: World) -> None:
    with listening(place) as port:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            head = HEAD + b"Content-Length: 100000\r\n\r\n"
            connection.sendall(head + form(part("files", b"x" * 2000, filename="a.txt"), end=b""))
            until(lambda: place.files())
        until(lambda: not place.files())
        until(lambda: [line for line in place.lines if line.get("route") == "/v1/documents"])
    assert [line for line in place.lines if line["event"] == "mistake"] == []
    assert place.client().get("/v1/jobs").json()["jobs"] == []


def test_an_upload_that_dawdles_is_ended(place: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consilience.serving.door.PATIENCE", 0.5)
    with (
        listening(place) as port,
        socket.create_connection(("127.0.0.1", port)) as connection,
    ):
        head = HEAD + b"Content-Length: 100000\r\n\r\n"
        connection.sendall(head + form(part("files", b"x", filename="a.txt"), end=b""))
        answer = b""
        connection.settimeout(30)
        while b'"slow"' not in answer:
            data = connection.recv(65536)
            assert data, answer
            answer += data
        assert answer.startswith(b"HTTP/1.1 408 ")
        until(lambda: not place.files())


def test_errors_are_told_in_the_language_of_the_request(place: World) -> None:
    found = place.client().post(
        "/v1/documents",
        content=b"x",
        headers={"Content-Type": "text/plain", "Accept-Language": "zh-CN"},
    )
    assert found.json()["error"]["explanation"] == (
        "服务器不理解这个请求；message 一栏说明是哪一部分。"
    )


def test_the_log_holds_no_name_of_a_document(place: World) -> None:
    uploaded(place.client(), "layoffs-2026.txt", b"words that nobody may read in a log")
    place.client().delete("/v1/documents", params={"source": "layoffs-2026.txt"})
    told = json.dumps(place.lines)
    assert "layoffs" not in told
    assert "nobody may read" not in told
