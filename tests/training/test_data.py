"""Which questions are the same, which answers stand in a text, and splits."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilience.errors import UsageError
from consilience.questions import Question
from consilience.training.data import (
    holds,
    question_key,
    split_questions,
    without_leaks,
)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Who may apply?", "who may  apply", True),
        ("誰可以申請？", "谁可以申请", True),
        ("ＡＢＣ是什么？", "abc 是什么", True),
        ("Who may apply?", "Who may reply?", False),
        ("", "?!", True),
    ],
)
def test_questions_that_are_one(one: str, other: str, same: bool) -> None:
    assert (question_key(one) == question_key(other)) is same


@pytest.mark.parametrize(
    ("text", "answer", "found"),
    [
        ("The cat sat.", "cat", True),
        ("The category.", "cat", False),
        ("The category, then a cat.", "cat", True),
        ("A concat.", "cat", False),
        ("那只猫在睡觉。", "猫", True),
        ("圖書館九點開門。", "图书馆", True),
        ("Open 24/7, Ltd.", "24-7", True),
        ("It took 12 years.", "2", False),
        ("第12页", "12", True),
        ("使用iPhone手机", "iphone", True),
        ("anything", "", False),
        ("anything", "?!", False),
        ("cat", "cat", True),
    ],
)
def test_answers_that_stand_in_a_text(text: str, answer: str, found: bool) -> None:
    assert holds(text, answer) is found


def questions(count: int) -> list[Question]:
    return [Question(f"question {n}", context=f"context {n // 3}") for n in range(count)]


def test_a_split_keeps_contexts_together_and_its_share() -> None:
    split = split_questions(questions(3000), dev=0.2)
    assert len(split.train) + len(split.dev) == 3000
    assert 500 < len(split.dev) < 700
    contexts = [{each.context for each in part} for part in (split.train, split.dev)]
    assert not contexts[0] & contexts[1]


def test_a_question_stays_on_its_side_when_others_come() -> None:
    few, many = (split_questions(questions(count), dev=0.3) for count in (300, 900))
    assert set(few.dev) <= set(many.dev)
    assert set(few.train) <= set(many.train)
    assert set(split_questions(questions(300), dev=0.3, seed=1).dev) != set(few.dev)


@settings(deadline=None)
@given(st.floats(0, 1))
def test_every_question_lands_on_one_side(dev: float) -> None:
    asked = questions(12)
    split = split_questions(asked, dev=dev)
    assert sorted(each.question for each in (*split.train, *split.dev)) == sorted(
        each.question for each in asked
    )
    if dev in (0.0, 1.0):
        assert len(split.dev) == 12 * dev


def test_a_share_that_is_none() -> None:
    with pytest.raises(UsageError, match=r"dev must lie between 0 and 1, received 1\.5"):
        split_questions([], dev=1.5)


def test_leaks_are_taken_out_of_the_training_questions() -> None:
    held_out = [Question("Who won?", context="Denver won.")]
    train = [
        Question("WHO WON"),
        Question("Who lost?", context="denver won"),
        Question("Who lost?", context="Carolina lost."),
        Question("Who lost?"),
    ]
    assert without_leaks(train, held_out) == train[2:]
    assert without_leaks(train, [Question("Where?")]) == train
