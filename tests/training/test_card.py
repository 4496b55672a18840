"""The card counts what is there."""

import json

import pytest

from consilience.errors import UsageError
from consilience.questions import Question, Turn
from consilience.training.card import Lengths, card_of, lengths_of

TRAIN = [
    Question("Who won?", ("Denver",), context="Denver won.", language="en"),
    Question("who won", ("Carolina",), context="Denver won.", language="en"),
    Question("谁赢了？", ("丹佛",), positive_ids=("p",), language="zh"),
    Question("And then?", history=(Turn("Who won?", "Denver"),), language="en"),
    Question("Why?", context="Nobody knows.", unanswerable=True, language=""),
]
DEV = [Question("誰贏了", ("丹佛",), language="zh"), Question("Where?", ("here",), language="en")]


def test_what_is_counted() -> None:
    card = card_of({"train": TRAIN, "dev": DEV})
    train = card.splits["train"]
    assert train.questions == 5
    assert train.languages == {"": 1, "en": 3, "zh": 1}
    assert (train.unanswerable, train.without_answers) == (1, 1)
    assert (train.with_context, train.with_answer_and_context, train.answer_in_context) == (3, 2, 1)
    assert (train.with_history, train.with_positives, train.duplicates) == (1, 1, 1)
    assert train.characters["questions"].longest == 9
    assert train.characters["answers"].count == 3
    assert train.characters["contexts"].count == 2
    assert train.tokens == {}
    assert [(each.first, each.second, each.questions) for each in card.overlaps] == [
        ("train", "dev", 1)
    ]


def test_a_question_on_another_context_is_no_repetition() -> None:
    asked = [Question("Who won?", context=context) for context in ("One.", "Two.", "One.")]
    assert card_of({"train": asked}).splits["train"].duplicates == 1


def test_tokens_are_counted_by_the_tokenizer_that_is_given() -> None:
    card = card_of({"dev": DEV}, count_tokens=lambda text: 10 * len(text.split()))
    assert card.splits["dev"].tokens["questions"] == Lengths(2, 10, 10, 10, 10)


def test_every_two_splits_are_compared() -> None:
    card = card_of({"a": DEV, "b": DEV, "c": []})
    assert [(each.first, each.second, each.questions) for each in card.overlaps] == [
        ("a", "b", 2),
        ("a", "c", 0),
        ("b", "c", 0),
    ]
    assert card.splits["c"].questions == 0


def test_lengths_by_hand() -> None:
    assert lengths_of([4]) == Lengths(1, 4, 4, 4, 4)
    assert lengths_of(list(range(1, 101))) == Lengths(100, 50.5, 50.5, 95.05, 100)


def test_the_card_in_english() -> None:
    assert card_of({"train": TRAIN, "dev": DEV}).text().splitlines() == [
        "train: 5 questions (English 3, other 1, Chinese 1)",
        "  unanswerable: 1",
        "  without a reference answer: 1",
        "  after earlier turns: 1",
        "  with a named passage that holds the answer: 1",
        "  repeated on the same context: 1",
        "  answer stands in the context: 1 of 2 (50.0%)",
        "  questions (5), in characters: mean 6.4, median 7, 95 % up to 8.8, longest 9",
        "  answers (3), in characters: mean 5.33, median 6, 95 % up to 7.8, longest 8",
        "  contexts (2), in characters: mean 12, median 12, 95 % up to 12.9, longest 13",
        "dev: 2 questions (English 1, Chinese 1)",
        "  questions (2), in characters: mean 4.5, median 4.5, 95 % up to 5.85, longest 6",
        "  answers (2), in characters: mean 3, median 3, 95 % up to 3.9, longest 4",
        "questions of dev that also stand in train: 1",
    ]


def test_the_card_in_chinese() -> None:
    lines = card_of({"train": TRAIN, "dev": DEV}).text("zh").splitlines()
    assert lines[0] == "train：5 个问题（英文 3，其他 1，中文 1）"
    assert "  2 个中有 1 个（50.0%）的答案出现在所附文字中" in lines
    assert "  所附文字共 2 条，按字符计：平均 12，中位数 12，95% 不超过 12.9，最长 13" in lines
    assert lines[-1] == "dev 中有 1 个问题也出现在 train 中"
    assert len(lines) == len(card_of({"train": TRAIN, "dev": DEV}).text().splitlines())


def test_the_card_is_json() -> None:
    values = card_of({"train": TRAIN, "dev": DEV}).to_dict()
    again = json.loads(json.dumps(values))
    assert again["splits"]["train"]["characters"]["contexts"]["longest"] == 13
    assert again["overlaps"] == [{"first": "train", "second": "dev", "questions": 1}]


def test_a_card_of_nothing() -> None:
    with pytest.raises(UsageError, match="a card needs a split"):
        card_of({})
