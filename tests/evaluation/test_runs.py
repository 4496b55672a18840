import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilience.errors import DamagedError, MissingError, UsageError, VersionError
from consilience.evaluation import read_run
from consilience.evaluation.records import Record
from consilience.evaluation.runs import RunFile
from tests.evaluation.made import record

SETUP = {"data": "d1", "ask": {"k": 5}, "store": ["s", 3]}
FIRST, SECOND = record("a", {"f1": 1.0}), record("b", {"f1": 0.5}, bleu=None, question="\ud83d?")


def written(path: Path, *records: Record) -> None:
    file = RunFile(path, SETUP)
    for one in records:
        file.append(one)
    file.close()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written(tmp_path / "run.jsonl", FIRST, SECOND)
    run = read_run(tmp_path / "run.jsonl")
    assert run.setup == SETUP
    assert run.records == (FIRST, SECOND)


@settings(deadline=None)
@given(st.text(), st.text(), st.floats(0, 1))
def test_any_text_survives(question: str, text: str, sure: float) -> None:
    one = record("x", {"f1": sure}, question=question, answer=text, confidence=sure)
    assert Record.from_dict(json.loads(json.dumps(one.to_dict()))) == one


def test_a_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    written(path, FIRST)
    file = RunFile(path, SETUP)
    assert file.done == (FIRST,)
    file.append(SECOND)
    file.close()
    assert read_run(path).records == (FIRST, SECOND)
    assert path.read_text().count("consilience_run") == 1


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_line_that_was_cut_off_is_dropped(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "run.jsonl"
    written(path, FIRST, SECOND)
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_run(path).records == (FIRST,)
    written(path, SECOND)
    assert read_run(path).records == (FIRST, SECOND)


def test_records_are_in_the_file_at_once(tmp_path: Path) -> None:
    file = RunFile(tmp_path / "run.jsonl", SETUP)
    file.append(FIRST)
    assert read_run(tmp_path / "run.jsonl").records == (FIRST,)
    file.close()


def test_a_run_of_something_else_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    written(path, FIRST)
    before = path.read_bytes()
    with pytest.raises(UsageError) as caught:
        RunFile(path, {**SETUP, "data": "d2", "ask": {"k": 7}})
    assert caught.value.message == (
        f'{path} is a run of something else: data was "d1", now "d2"; '
        'ask was {"k": 5}, now {"k": 7}'
    )
    assert caught.value.hint == "name another file with --out, or remove this one to begin anew"
    assert path.read_bytes() == before


def test_there_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no folder .*nowhere for the run") as caught:
        RunFile(tmp_path / "nowhere" / "run.jsonl", SETUP)
    assert caught.value.hint == f"mkdir -p {tmp_path / 'nowhere'}"


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"there is no run at .*run\.jsonl"):
        read_run(tmp_path / "run.jsonl")


HEAD = json.dumps({"consilience_run": 1, **SETUP})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1 is not of a run: not JSON"),
        ("not json\n", "line 1 is not of a run: not JSON"),
        ("[]\n", "line 1 is not of a run: not an object"),
        ('{"question": "?"}\n', "line 1 is not of a run: no run begins like this"),
        (f"{HEAD}\nnull\n", "line 2 is not of a run: not an object"),
        (f'{HEAD}\n{{"id": "a"}}\n', "line 2 is not of a run: KeyError 'bleu'"),
    ],
)
def test_a_file_that_is_no_run(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(content)
    with pytest.raises(DamagedError, match=message):
        read_run(path)


def test_a_run_of_a_newer_version(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text('{"consilience_run": 2}\n')
    with pytest.raises(VersionError, match="written by a newer version, received format 2"):
        read_run(path)
