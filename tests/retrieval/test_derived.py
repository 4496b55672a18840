import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilience.retrieval import derived
from consilience.retrieval.derived import (
    Manifest,
    digests,
    exclusive,
    read_manifest,
    write_manifest,
)

manifests = st.builds(
    Manifest,
    recipe=st.text(st.characters(codec="utf-8")),
    identity=st.text(st.characters(codec="utf-8")),
    sequence=st.integers(0, 2**53),
    files=st.dictionaries(st.text(st.characters(codec="utf-8")), st.text("0123456789abcdef")),
)


@given(manifests)
@settings(deadline=None)
def test_a_manifest_is_read_as_written(
    tmp_path_factory: pytest.TempPathFactory, manifest: Manifest
) -> None:
    path = tmp_path_factory.mktemp("derived") / "manifest.json"
    write_manifest(path, manifest)
    assert read_manifest(path) == manifest
    assert [p.name for p in path.parent.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"recipe": "r", "identity": "i", "sequence": "1", "files": {}}',
        b'{"recipe": "r", "identity": "i", "sequence": 1, "files": []}',
        b'{"recipe": "r", "identity": "i", "sequence": 1, "files": {}, "more": 1}',
    ],
)
def test_what_is_no_manifest_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(content)
    assert read_manifest(path) is None


def test_a_missing_manifest_is_none(tmp_path: Path) -> None:
    assert read_manifest(tmp_path / "manifest.json") is None


def test_digests_see_every_byte_and_no_hidden_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / ".lock").write_bytes(b"1")
    before = digests(tmp_path)
    assert list(before) == ["a"]
    (tmp_path / "a").write_bytes(b"abd")
    assert digests(tmp_path) != before


def test_noted_digests_are_used_for_files_that_are_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, noted = tmp_path / "files", tmp_path / "noted"
    folder.mkdir()
    (folder / "a").write_bytes(b"abc")
    (folder / "b").write_bytes(b"xyz")
    monkeypatch.setattr(derived, "_COARSE", 0)
    first = digests(folder, noted=noted)
    read: list[str] = []
    monkeypatch.setattr(derived, "digest", lambda path: read.append(path.name) or "new")
    assert digests(folder, noted=noted) == first
    assert read == []
    (folder / "b").write_bytes(b"xyZ")
    assert digests(folder, noted=noted) == first | {"b": "new"}
    assert read == ["b"]


def test_a_file_that_was_given_its_old_time_back_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, noted = tmp_path / "files", tmp_path / "noted"
    folder.mkdir()
    (folder / "a").write_bytes(b"abc")
    monkeypatch.setattr(derived, "_COARSE", 0)
    before = digests(folder, noted=noted)
    known = (folder / "a").stat()
    (folder / "a").write_bytes(b"abd")
    # The clock of a file system ticks slowly.
    while (folder / "a").stat().st_ctime_ns == known.st_ctime_ns:
        os.utime(folder / "a")
    os.utime(folder / "a", ns=(known.st_atime_ns, known.st_mtime_ns))
    assert digests(folder, noted=noted) != before


def test_after_a_start_of_the_machine_everything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, noted = tmp_path / "files", tmp_path / "noted"
    folder.mkdir()
    (folder / "a").write_bytes(b"abc")
    monkeypatch.setattr(derived, "_COARSE", 0)
    digests(folder, noted=noted)
    monkeypatch.setattr(derived, "_started", lambda: "another time")
    monkeypatch.setattr(derived, "digest", lambda path: "read")
    assert digests(folder, noted=noted) == {"a": "read"}


def test_a_file_that_was_just_written_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, noted = tmp_path / "files", tmp_path / "noted"
    folder.mkdir()
    (folder / "a").write_bytes(b"abc")
    monkeypatch.setattr(derived, "_COARSE", 10**18)
    digests(folder, noted=noted)
    monkeypatch.setattr(derived, "digest", lambda path: "read")
    assert digests(folder, noted=noted) == {"a": "read"}


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"a": 1}', b'{"a": ["x"]}', b"\xff"])
def test_notes_that_cannot_be_read_are_none(tmp_path: Path, content: bytes) -> None:
    folder, noted = tmp_path / "files", tmp_path / "noted"
    folder.mkdir()
    (folder / "a").write_bytes(b"abc")
    noted.write_bytes(content)
    assert digests(folder, noted=noted) == digests(folder)


def test_only_one_holds_the_lock(tmp_path: Path) -> None:
    with exclusive(tmp_path / "lock", patience=0) as first:
        assert first
        with exclusive(tmp_path / "lock", patience=0) as second:
            assert not second
    with exclusive(tmp_path / "lock", patience=0) as third:
        assert third
