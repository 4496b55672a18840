"""What is written is read again as it was."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilience.questions import Question, Turn, read_questions, write_questions

TEXT = st.text(max_size=12)
SAID = TEXT.filter(lambda text: bool(text.strip()))
NAMES = st.lists(TEXT.filter(bool), max_size=3, unique=True).map(tuple)
QUESTIONS = st.builds(
    Question,
    question=SAID,
    answers=st.lists(SAID, max_size=3, unique=True).map(tuple),
    id=TEXT,
    context=TEXT,
    title=TEXT,
    positive_ids=NAMES,
    negative_ids=NAMES,
    history=st.lists(st.builds(Turn, question=SAID, answer=TEXT), max_size=2).map(tuple),
    user=TEXT,
    label=TEXT,
    language=st.sampled_from(["zh", "en", "", "de"]),
)
UNANSWERABLE = st.builds(Question, question=SAID, unanswerable=st.just(True))


@settings(deadline=None)
@given(st.lists(QUESTIONS | UNANSWERABLE, min_size=1, max_size=4))
def test_questions_come_back(
    tmp_path_factory: pytest.TempPathFactory, questions: list[Question]
) -> None:
    path = tmp_path_factory.mktemp("round") / "questions.jsonl"
    assert write_questions(path, questions) == len(questions)
    assert read_questions(path) == questions


def test_what_is_empty_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    write_questions(path, [Question("谁？", ("甲",), language="zh")])
    assert path.read_text("utf-8") == (
        '{"question": "谁？", "answers": ["甲"], "language": "zh"}\n'
    )


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    write_questions(path, [Question("First?")])
    with pytest.raises(TypeError):
        write_questions(path, [Question("Second?"), None])  # type: ignore[list-item]
    assert [json.loads(line)["question"] for line in path.read_text("utf-8").splitlines()] == [
        "First?"
    ]
    assert list(tmp_path.iterdir()) == [path]
