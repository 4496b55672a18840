import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilience.cli.history import Line, append_turn, read_history
from consilience.errors import ConsilienceError, DamagedError, UsageError

said = st.text(st.characters(exclude_categories=["Cs"]))


@given(turns=st.lists(st.builds(Line, said, said), max_size=5))
@settings(max_examples=50, deadline=None)
def test_what_was_said_comes_back(
    turns: list[Line], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("talk") / "talk.jsonl"
    for turn in turns:
        append_turn(path, turn)
    assert read_history(path) == turns


def test_a_file_that_is_not_there_is_an_empty_conversation(tmp_path: Path) -> None:
    assert read_history(tmp_path / "talk.jsonl") == []
    assert (tmp_path / "talk.jsonl").stat().st_mode & 0o077 == 0


def test_a_file_written_by_hand_may_lack_its_last_line_break(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    path.write_text('\n{"question": "谁", "answer": "我", "when": 1}', "utf-8")
    append_turn(path, Line("b", "c"))
    assert read_history(path) == [Line("谁", "我"), Line("b", "c")]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "null",
        '"question"',
        '{"question": "a"}',
        '{"question": "a", "answer": null}',
        '{"question": 1, "answer": 2}',
        '{"question": "\\ud800", "answer": ""}',
        "[" * 100_000,
        "\udcff",
    ],
)
def test_a_damaged_line_is_named_and_the_file_left_alone(tmp_path: Path, line: str) -> None:
    path = tmp_path / "talk.jsonl"
    damaged = f'{{"question": "a", "answer": "b"}}\n{line}\n'.encode(errors="surrogateescape")
    path.write_bytes(damaged)
    with pytest.raises(DamagedError) as caught:
        read_history(path)
    assert caught.value.message == (
        f'line 2 of the history {path} is not {{"question": "…", "answer": "…"}}'
    )
    assert caught.value.hint == (
        "correct or delete line 2, or name another file; nothing was changed"
    )
    assert path.read_bytes() == damaged


def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_history(tmp_path / "none" / "talk.jsonl")
    where = tmp_path / "none" / "talk.jsonl"
    assert caught.value.message == (
        f"the history {where} cannot be opened: No such file or directory"
    )


def test_a_full_disk_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "talk.jsonl"
    append_turn(path, Line("a", "b"))
    before, write = path.read_bytes(), os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:7]))
    with pytest.raises(ConsilienceError, match="could not be written: the disk is full"):
        append_turn(path, Line("c", "d"))
    assert path.read_bytes() == before


def test_two_conversations_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    turns = [[Line(f"{talk} {n}", "x" * 5000) for n in range(40)] for talk in range(4)]
    threads = [
        threading.Thread(target=lambda own=own: [append_turn(path, turn) for turn in own])
        for own in turns
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = read_history(path)
    assert sorted(found, key=repr) == sorted((t for own in turns for t in own), key=repr)
    assert all(json.loads(line) for line in path.read_text("utf-8").splitlines())
