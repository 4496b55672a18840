"""What the shipped model is taught: every answer must stand where the example says it stands."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.recipes import conftest  # noqa: F401 - makes the recipe importable

mixture = pytest.importorskip("mixture", exc_type=ImportError)

ENGLISH = "The library was built in 1911 by Ada North. It has 40,000 books and two halls. " * 20
CHINESE = "图书馆建于1911年，由北川先生出资。馆内有四万册书和两个大厅。" * 20


def row(context: str, answer: str) -> dict[str, object]:
    return {"question": f"{answer}?", "context": context, "title": "A_B", "answers": [answer]}


@given(st.sampled_from([ENGLISH, CHINESE]), st.data())
def test_a_window_keeps_its_stretch(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 2))
    end = data.draw(st.integers(start + 1, min(len(text), start + 60)))
    size = data.draw(st.integers(80, 600))
    cut, left, right = mixture.window(text, start, end, size, random.Random(1))
    assert cut[left:right] == text[start:end]
    assert len(cut) <= size


@pytest.mark.parametrize(("context", "answer"), [(ENGLISH, "Ada North"), (CHINESE, "四万册")])
def test_an_extractive_answer_stands_in_its_passage(context: str, answer: str) -> None:
    (reading,) = mixture.extractive([row(context, answer)], random.Random(2))
    assert reading.passage[reading.start : reading.end] == answer
    assert reading.title == "A B"


def test_tokenised_text_is_put_back_together() -> None:
    context = "In July 2005 , Google acquired Android Inc. for $ 50 million ."
    (reading,) = mixture.extractive([row(context, "July 2005")], random.Random(3), tokenised=True)
    assert reading.passage[reading.start : reading.end] == "July 2005"
    assert " ," not in reading.passage


@pytest.mark.parametrize(("text", "language"), [(ENGLISH, "en"), (CHINESE, "zh")])
def test_a_cloze_question_asks_for_what_was_taken_out(text: str, language: str) -> None:
    made = list(mixture.cloze([{"text": text}] * 20, random.Random(4), language))
    assert made
    for reading in made:
        answer = reading.passage[reading.start : reading.end]
        assert answer.strip()
        assert any(ask in reading.question for ask in mixture.ASK[language])


def test_a_row_that_asks_nothing_is_left_out() -> None:
    rows = [row(ENGLISH, "Ada North") | {"question": asked} for asked in ("", " ", "who?")]
    assert [one["question"] for one in mixture.allowed(rows, set())] == ["who?"]


def test_negatives_do_not_hold_the_answer() -> None:
    readings = [
        mixture.Reading(f"who {i}?", "t", f"it was number {i}.", 14, 14 + len(str(i)))
        for i in range(1, 40)  # where it was number 12, it was no number 1, but a 1 stands there
    ]
    added = mixture.with_negatives(readings, 0.5, random.Random(5))[len(readings) :]
    assert added
    for reading in added:
        assert reading.start == -1
        assert reading.question.split()[1].rstrip("?") not in reading.passage


def test_rows_of_a_dev_set_are_left_out() -> None:
    rows = [row("Text one.", "one"), row("Text two.", "two"), row("Text three.", "three")]
    forbidden = {mixture.hashed("Text  two."), mixture.hashed("three?")}
    assert [r["context"] for r in mixture.allowed(rows, forbidden)] == ["Text one."]
