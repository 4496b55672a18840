import pytest

from consilience.evaluation.support import (
    Attribution,
    attribution,
    holds_answer,
    words_contained,
)


@pytest.mark.parametrize(
    ("text", "answers", "holds"),
    [
        ("Open from 14:30 to 20:00.", ["8 pm", "20:00"], True),
        ("Open from 14:30 to 20:00.", ["30 20"], False),
        ("The bankers met.", ["bank"], False),
        ("每年有五天年假", ["五天"], True),
        ("銀行在東邊", ["银行"], True),
        ("anything", [], False),
        ("anything", ["!"], False),
    ],
)
def test_an_answer_stands_in_a_text(text: str, answers: list[str], holds: bool) -> None:
    assert holds_answer(text, answers) is holds


def test_the_plain_judge_wants_every_word() -> None:
    assert words_contained("The fee is 19 yuan.", "19 YUAN")
    assert not words_contained("The fee is 19 yuan.", "20 yuan")
    assert not words_contained("The fee is 19 yuan.", "…")


FEE, HOURS, IDLE = "The fee is 19 yuan.", "Visits begin at 14:30.", "Nothing to see."


@pytest.mark.parametrize(
    ("answer", "cited", "recall", "precision"),
    [
        ("19 yuan", [FEE], 1.0, 1.0),
        ("19 yuan", [FEE, IDLE], 1.0, 0.5),  # the idle one is not needed
        ("fee at 14:30", [FEE, HOURS], 1.0, 1.0),  # neither suffices, both are needed
        ("fee at 14:30", [FEE, HOURS, IDLE], 1.0, 2 / 3),
        ("20 yuan", [FEE, HOURS], 0.0, 0.0),  # what is not supported has no useful citation
        ("20 yuan", [], 0.0, None),
        # the first sentence needs FEE, the second HOURS: one of two citations helps each
        ("The fee is 19 yuan. Visits begin at 14:30.", [FEE, HOURS], 1.0, 0.5),
    ],
)
def test_attribution_as_alce_defines_it(
    answer: str, cited: list[str], recall: float, precision: float | None
) -> None:
    assert attribution(answer, cited) == Attribution(recall, pytest.approx(precision))


def test_an_answer_without_words_states_nothing() -> None:
    assert attribution("", [FEE]) is None


def test_another_judge_may_decide() -> None:
    asked = []

    def doubting(text: str, statement: str) -> bool:
        asked.append((text, statement))
        return False

    assert attribution("19 yuan", [FEE], judge=doubting) == Attribution(0.0, 0.0)
    assert asked == [(FEE, "19 yuan")]
