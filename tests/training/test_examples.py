"""Questions as examples: the passage that holds the answer, and those that only look right."""

from consilience.questions import Context, Question
from consilience.training.examples import make_examples


def context(text: str) -> Context:
    return Context(f"id of {text}", "", text)


def test_negatives_hold_no_answer_and_come_once_the_questions_own_first() -> None:
    asked = Question("what", ("cat",), positive_ids=("right",), negative_ids=("wrong", "own"))
    known = {"right": context("the cat"), "wrong": context("a Cat!"), "own": context("a category")}
    mined = [
        context(text) for text in ("the cat", "cat and dog", "dog", "a category", "dog", "cow")
    ]
    (found,) = make_examples([asked], look_up=known.get, mine=lambda _: mined, negatives=9)
    assert found.passage == known["right"]
    assert [one.text for one in found.negatives] == ["a category", "dog", "cow"]


def test_there_are_as_many_negatives_as_are_asked_for() -> None:
    mined = [context(text) for text in ("dog", "cow", "hen")]
    for wanted in (0, 2):
        (found,) = make_examples(
            [Question("what", ("cat",))],
            look_up=lambda _: None,
            mine=lambda _: mined,
            negatives=wanted,
        )
        assert list(found.negatives) == mined[:wanted]
