"""Walking: order, sources, what is skipped, what fails, and folders that go in circles."""

import os
from pathlib import Path

import pytest

from consilience.documents import Failure, Found, Skipped, find_documents
from consilience.documents.walk import Finding


def _tree(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text", encoding="utf-8")


def _sources(findings: list[Finding]) -> list[str]:
    return [finding.source for finding in findings if isinstance(finding, Found)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_sources_are_paths_as_named_in_the_order_of_names(here: Path) -> None:
    _tree(
        here, "handbook/b.md", "handbook/a/z.txt", "handbook/a.md", "handbook/假期.PDF", "one.csv"
    )
    findings = list(find_documents(["one.csv", Path("./handbook/")]))
    assert _sources(findings) == [
        "one.csv",
        "handbook/a/z.txt",
        "handbook/a.md",
        "handbook/b.md",
        "handbook/假期.PDF",
    ]
    assert _sources(list(find_documents(["."])))[-1] == "one.csv"
    assert _sources(list(find_documents([here / "one.csv"]))) == [(here / "one.csv").as_posix()]


def test_what_is_passed_over_is_reported(here: Path) -> None:
    _tree(here, "d/.git/a.md", "d/.hidden.md", "d/~$lock.docx", "d/x.exe", "d/LICENSE", "d/a.md")
    findings = list(find_documents(["d"]))
    assert _sources(findings) == ["d/a.md"]
    assert [finding for finding in findings if not isinstance(finding, Found)] == [
        Skipped("d/.git", "hidden"),
        Skipped("d/.hidden.md", "hidden"),
        Skipped("d/LICENSE", "no reader for a name without a suffix"),
        Skipped("d/x.exe", "no reader for .exe"),
        Skipped("d/~$lock.docx", "hidden"),
    ]


def test_what_is_named_and_cannot_be_read_fails(here: Path) -> None:
    _tree(here, "x.exe", ".hidden.md")
    findings = list(find_documents(["gone.md", "x.exe", ".hidden.md"]))
    assert findings[0] == Failure("gone.md", "there is no such file or folder")
    assert isinstance(findings[1], Failure)
    assert findings[1].reason.startswith("unknown format: no reader for .exe (readable: .pdf")
    assert _sources(findings) == [".hidden.md"]


def test_links_to_folders_are_not_followed_and_links_to_files_are(here: Path) -> None:
    _tree(here, "d/sub/a.md", "out.md")
    (here / "d/sub/loop").symlink_to(here / "d")
    (here / "d/self").symlink_to(".")
    (here / "d/link.md").symlink_to(here / "out.md")
    (here / "d/lost.md").symlink_to(here / "gone.md")
    (here / "d/circle.md").symlink_to("circle.md")
    assert list(find_documents(["d"])) == [
        Failure("d/circle.md", "a link that leads nowhere"),
        Found(Path("d/link.md"), "d/link.md"),
        Failure("d/lost.md", "a link that leads nowhere"),
        Skipped("d/self", "a link to a folder"),
        Found(Path("d/sub/a.md"), "d/sub/a.md"),
        Skipped("d/sub/loop", "a link to a folder"),
    ]


def test_a_linked_folder_that_is_named_is_walked(here: Path) -> None:
    _tree(here, "d/a.md")
    (here / "link").symlink_to("d")
    assert _sources(list(find_documents(["link"]))) == ["link/a.md"]


def test_special_files_fail_and_are_never_opened(here: Path) -> None:
    (here / "d").mkdir()
    os.mkfifo(here / "d/pipe.txt")
    expected = Failure("d/pipe.txt", "is a named pipe, not a file")
    assert list(find_documents(["d"])) == [expected]
    assert list(find_documents(["d/pipe.txt"])) == [expected]


def test_a_file_under_one_name_comes_once(here: Path) -> None:
    _tree(here, "d/a.md", "d/x.exe")
    findings = list(find_documents(["d", "d/a.md", "./d", "gone", "gone"]))
    assert _sources(findings) == ["d/a.md"]
    assert len(findings) == 3


def test_a_folder_without_permission_is_named_and_the_rest_walked(plain_user: Path) -> None:
    _tree(plain_user, "d/closed/a.md", "d/open.md")
    closed = plain_user / "d/closed"
    closed.chmod(0)
    try:
        findings = list(find_documents([plain_user / "d"]))
    finally:
        closed.chmod(0o700)
    assert findings[0] == Failure(closed.as_posix(), "cannot be listed: permission denied")
    assert _sources(findings) == [(plain_user / "d/open.md").as_posix()]


def test_a_name_that_is_no_text_fails(here: Path) -> None:
    try:
        Path(os.fsdecode(b"d\xff.md")).write_text("x", encoding="utf-8")
    except OSError:
        pytest.skip("this file system takes only names that are text")
    assert list(find_documents(["."])) == [
        Failure("d\ufffd.md", "its name is not valid text; rename it")
    ]


def test_folders_nested_deeper_than_calls_are_walked(here: Path) -> None:
    folders = [here / ("d/" * depth) for depth in range(1, 1200)]
    try:
        for folder in folders:
            folder.mkdir()
        (folders[-1] / "a.md").touch()
        assert _sources(list(find_documents(["d"]))) == ["d/" * 1199 + "a.md"]
    finally:
        (folders[-1] / "a.md").unlink()
        for folder in reversed(folders):
            folder.rmdir()


def test_an_empty_folder_has_nothing(here: Path) -> None:
    (here / "d").mkdir()
    assert list(find_documents(["d"])) == []
