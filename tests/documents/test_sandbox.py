"""The parent's side: it survives every end of its child and says what happened."""

import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from consilience.documents import Document, ReadLimits, read_document
from consilience.documents.limits import DEFAULT_LIMITS, MEGABYTE
from consilience.documents.sandbox import (
    Request,
    Sandbox,
    _Child,
    _document_in,
    cause_of_death,
)
from consilience.errors import DocumentError, UsageError
from tests.documents import samples
from tests.documents.conftest import failure, reason


def _request(data: bytes, *, size: int | None = None, suffix: str = ".txt") -> Request:
    return Request(io.BytesIO(data), len(data) if size is None else size, "s", "stem", suffix)


@pytest.fixture
def sandbox():
    box = Sandbox()
    yield box
    box.close()


def _texts(documents: list[Document]) -> list[str]:
    return [document.text for document in documents]


def _pid(sandbox: Sandbox) -> int:
    assert sandbox._child is not None
    return sandbox._child._process.pid


def test_one_child_reads_file_after_file(sandbox: Sandbox) -> None:
    assert _texts(sandbox.read(_request(b"one"), DEFAULT_LIMITS)) == ["one"]
    first = _pid(sandbox)
    assert _texts(sandbox.read(_request(b"two"), DEFAULT_LIMITS)) == ["two"]
    with pytest.raises(DocumentError, match="holds no text"):
        sandbox.read(_request(b" "), DEFAULT_LIMITS)
    assert _texts(sandbox.read(_request(b"three"), DEFAULT_LIMITS)) == ["three"]
    assert _pid(sandbox) == first


def test_other_limits_get_another_child(sandbox: Sandbox) -> None:
    sandbox.read(_request(b"one"), DEFAULT_LIMITS)
    first = _pid(sandbox)
    sandbox.read(_request(b"two"), ReadLimits(cpu_seconds=7))
    assert _pid(sandbox) != first


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_child_that_died_between_files_is_replaced(sandbox: Sandbox, number: int) -> None:
    sandbox.read(_request(b"one"), DEFAULT_LIMITS)
    assert sandbox._child is not None
    os.kill(_pid(sandbox), number)
    sandbox._child._process.wait()
    assert _texts(sandbox.read(_request(b"two"), DEFAULT_LIMITS)) == ["two"]


class _Stalling(io.BytesIO):
    """A file that stops its reader's child before it gives the last byte."""

    def __init__(self, data: bytes, sandbox: Sandbox, number: int) -> None:
        super().__init__(data)
        self._sandbox, self._number = sandbox, number

    def read(self, size: int | None = -1) -> bytes:
        os.kill(_pid(self._sandbox), self._number)
        return super().read(size)


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
@pytest.mark.parametrize(
    ("number", "message"),
    [
        (signal.SIGSEGV, "its reader crashed (signal 11, SIGSEGV)"),
        (signal.SIGKILL, "needed more than 512 MB of memory"),
        (signal.SIGABRT, "needed more than 512 MB of memory"),
        (signal.SIGXCPU, "took more than 20 s of CPU"),
    ],
)
def test_a_child_that_dies_over_a_file_is_a_reason(
    sandbox: Sandbox, number: int, message: str
) -> None:
    request = Request(_Stalling(b"x", sandbox, number), 1, "s", "stem", ".txt")
    with pytest.raises(DocumentError) as caught:
        sandbox.read(request, DEFAULT_LIMITS)
    assert caught.value.message == message
    assert _texts(sandbox.read(_request(b"next"), DEFAULT_LIMITS)) == ["next"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_a_child_that_hangs_is_stopped_by_the_clock(sandbox: Sandbox) -> None:
    request = Request(_Stalling(b"x", sandbox, signal.SIGSTOP), 1, "s", "stem", ".txt")
    with pytest.raises(DocumentError) as caught:
        sandbox.read(request, ReadLimits(wall_seconds=1))
    assert caught.value.message == "took more than 1 s"
    assert caught.value.hint == "split the file, or raise the limit"


def test_a_file_that_shrinks_is_a_reason(sandbox: Sandbox) -> None:
    with pytest.raises(DocumentError, match=r"^changed while it was read$"):
        sandbox.read(_request(b"short", size=10), DEFAULT_LIMITS)
    assert _texts(sandbox.read(_request(b"next"), DEFAULT_LIMITS)) == ["next"]


def test_an_interrupted_read_leaves_no_answer_for_the_next_file(sandbox: Sandbox) -> None:
    class Interrupting(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sandbox.read(Request(Interrupting(), 1, "s", "stem", ".txt"), DEFAULT_LIMITS)
    assert _texts(sandbox.read(_request(b"next"), DEFAULT_LIMITS)) == ["next"]


def test_a_child_that_talks_nonsense_is_not_believed(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    lie = "import sys, time; sys.stdout.write('x' * 9999); sys.stdout.flush(); sys.stdin.read()"
    real = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, **rest: real([sys.executable, "-c", lie], **rest)
    )
    monkeypatch.setattr("consilience.documents.sandbox._GRACE", 0.1)
    with pytest.raises(DocumentError) as caught:
        sandbox.read(_request(b"one"), DEFAULT_LIMITS)
    assert caught.value.message.startswith("its reader answered nonsense (a frame of ")


def test_threads_take_turns(sandbox: Sandbox) -> None:
    texts: list[str] = []

    def work(number: int) -> None:
        for _ in range(5):
            texts.extend(_texts(sandbox.read(_request(f"text {number}".encode()), DEFAULT_LIMITS)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(texts) == sorted(f"text {number}" for number in range(4) for _ in range(5))


def test_a_closed_sandbox_starts_again(sandbox: Sandbox) -> None:
    sandbox.read(_request(b"one"), DEFAULT_LIMITS)
    child = sandbox._child
    assert child is not None
    sandbox.close()
    sandbox.close()
    assert child._process.returncode is not None
    assert _texts(sandbox.read(_request(b"two"), DEFAULT_LIMITS)) == ["two"]


@pytest.mark.parametrize(
    ("returncode", "message"),
    [
        (-11, "its reader crashed (signal 11, SIGSEGV)"),
        (-63, "its reader crashed (signal 63, unknown)"),
        (75, "needed more than 512 MB of memory"),
        (1, "its reader stopped (exit code 1)"),
    ],
)
def test_every_end_has_words(returncode: int, message: str) -> None:
    assert cause_of_death(returncode, DEFAULT_LIMITS).message == message


def test_the_child_gets_a_bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    child = _Child(DEFAULT_LIMITS)
    try:
        environment = Path(f"/proc/{child._process.pid}/environ")
        if not environment.exists():
            pytest.skip("this system does not show the environment of a process")
        child.read(_request(b"x"), _document_in)
        assert b"SECRET_TOKEN" not in environment.read_bytes()
    finally:
        child.end()


HEAVY = ("torch", "faiss", "numpy", "apsw", "docx", "pptx", "lxml", "pypdfium2")


def test_the_parent_imports_no_parsing_library(tmp_path: Path) -> None:
    path = tmp_path / "a.docx"
    path.write_bytes(samples.docx(lambda word: word.add_paragraph("text")))
    code = (
        "import sys; from pathlib import Path; from consilience.documents import read_document; "
        f"read_document(Path({str(path)!r}), source='a'); "
        f"print([name for name in {HEAVY} + ('selectolax', 'python_calamine') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_forked_process_has_a_child_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"text")
    code = (
        "import os\nfrom pathlib import Path\n"
        "from consilience.documents import read_document\n"
        "from consilience.documents.sandbox import SHARED\n"
        f"read = lambda: read_document(Path({str(path)!r}), source='a')[0].text\n"
        "first = read()\n"
        "pid = os.fork()\n"
        "if pid == 0: os._exit(0 if SHARED._child is None and read() == 'text' else 1)\n"
        "status = os.waitpid(pid, 0)[1]\n"
        "print(first, read(), status, SHARED._child is None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "text text 0 False\n"


def test_limits_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        ReadLimits(memory_bytes=MEGABYTE)
    assert caught.value.message == "the limit memory_bytes is 1048576"
    assert caught.value.hint == "set it to 134217728 or more"
    with pytest.raises(UsageError, match="the limit cpu_seconds is 0"):
        ReadLimits(cpu_seconds=0)
    path = tmp_path / "a.txt"
    path.write_bytes(b"12345")
    error = failure(path, ReadLimits(file_bytes=4))
    assert error.message == "too large: 5 bytes, allowed are 4 bytes"


def test_paths_that_are_no_readable_file(tmp_path: Path) -> None:
    folder = tmp_path / "d.txt"
    folder.mkdir()
    assert reason(folder) == "is a folder, not a file"
    assert reason(tmp_path / "gone.txt") == "cannot be opened: no such file or directory"
    assert reason(tmp_path / "a.exe") == "unknown format: no reader for .exe"
    (tmp_path / "empty.pdf").write_bytes(b"")
    assert reason(tmp_path / "empty.pdf") == "holds no text: the file is empty (0 bytes)"


def test_a_name_that_is_no_text_is_a_reason() -> None:
    with pytest.raises(DocumentError, match="its name is not valid text"):
        read_document(Path("a.txt"), source="\udcff.txt")


def test_a_child_that_cannot_start_is_a_reason(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(DocumentError, match=r"its reader cannot be started: .*No such file"):
        sandbox.read(_request(b"x"), DEFAULT_LIMITS)


def test_a_file_without_permission_is_a_reason(plain_user: Path) -> None:
    path = plain_user / "a.txt"
    path.write_bytes(b"text")
    path.chmod(0)
    assert reason(path) == "cannot be opened: permission denied"


def test_the_path_stands_in_a_note_of_the_error(tmp_path: Path) -> None:
    path = tmp_path / "blank.txt"
    path.write_bytes(b" ")
    with pytest.raises(DocumentError) as caught:
        read_document(path, source="s")
    assert caught.value.__notes__ == [f"while reading {path}"]
    assert caught.value.to_dict() == {
        "code": 7,
        "kind": "document",
        "message": "holds no text",
        "hint": "",
    }
