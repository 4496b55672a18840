"""Files that only grow: a stop at any moment loses one line at most."""

import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilience.errors import DamagedError, UsageError
from consilience.training.lines import Lines

VALUES = [{"teacher": "a"}, ["key", [1.0, -0.5]], ["ключ", "line\u2028end \x85 half \ud800"]]


def grown(path: Path, values: list[object]) -> Lines:
    lines = Lines(path)
    for value in values:
        lines.add(value)
    return lines


def test_what_was_added_is_read_back_and_added_to(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    assert Lines(path).values == []
    assert not path.exists()
    assert grown(path, VALUES[:2]).values == VALUES[:2]
    assert grown(path, VALUES[2:]).values == VALUES
    assert Lines(path).values == VALUES


@given(cut=st.integers(0, 200))
def test_a_stop_at_any_byte_loses_the_last_line_at_most(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("lines") / "scores.jsonl"
    grown(path, VALUES)
    data = path.read_bytes()[:cut]
    path.write_bytes(data)
    whole = data.count(b"\n")
    lines = Lines(path)
    assert lines.values == VALUES[:whole]
    assert path.read_bytes() == data  # reading writes nothing
    lines.add("more")
    assert Lines(path).values == [*VALUES[:whole], "more"]


def test_a_disk_that_is_full_leaves_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    lines = grown(path, VALUES)
    path.write_bytes(path.read_bytes() + b'["cut')
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, before[1]))
    try:
        with pytest.raises(UsageError, match=r"scores\.jsonl could not be written") as caught:
            lines.add("x" * 200)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "make room on the disk" in caught.value.hint
    assert Lines(path).values == VALUES
    lines.add("more")
    assert Lines(path).values == [*VALUES, "more"]


def test_a_line_that_is_not_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_bytes(b'{"teacher": "a"}\n[1, \n["key", [1.0]]\n')
    with pytest.raises(DamagedError, match=r"scores\.jsonl line 2 is not JSON") as caught:
        Lines(path)
    assert caught.value.hint == "delete the file; what it held is asked for again"
