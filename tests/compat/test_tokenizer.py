"""`RagTokenizer`: questions for one tokenizer, answers for the other."""

from pathlib import Path
from typing import Any

import pytest
import transformers

from consilience.compat.transformers import RagTokenizer
from consilience.errors import MissingError
from tests.compat.tiny_rag import QUESTIONS, tokenizer, write_tokenizers


@pytest.fixture
def both() -> RagTokenizer:
    return RagTokenizer(tokenizer("bert"), tokenizer("bart"))


def ids(kind: str, text: Any, **how: Any) -> Any:
    return tokenizer(kind)(text, **how)["input_ids"]


def test_questions_are_the_question_encoders(both: RagTokenizer) -> None:
    assert both(QUESTIONS[0])["input_ids"] == ids("bert", QUESTIONS[0])
    assert both.decode(ids("bart", "the fee"), skip_special_tokens=True) == "the fee"
    assert both.batch_decode([ids("bart", "the fee")], skip_special_tokens=True) == ["the fee"]


def test_answers_are_the_generators(both: RagTokenizer) -> None:
    theirs = transformers.RagTokenizer(tokenizer("bert"), tokenizer("bart"))
    # transformers tokenises answers for the question encoder, whose ids mean other words.
    assert theirs(text_target="the fee")["input_ids"] == ids("bert", "the fee")
    assert both(text_target="the fee")["input_ids"] == ids("bart", "the fee")
    together = both("what is", text_target="the fee")
    assert together["input_ids"] == ids("bert", "what is")
    assert together["labels"] == ids("bart", "the fee")


def test_within_the_target_mode_texts_are_answers(both: RagTokenizer) -> None:
    with both.as_target_tokenizer():
        assert both("the fee")["input_ids"] == ids("bart", "the fee")
    assert both("the fee")["input_ids"] == ids("bert", "the fee")


def test_batches_of_old_scripts(both: RagTokenizer) -> None:
    made = both.prepare_seq2seq_batch(
        QUESTIONS, ["nine", "in 1889 by the king"], max_target_length=4, return_tensors="pt"
    )
    assert made["input_ids"].tolist() == ids("bert", QUESTIONS, padding=True)
    expected = ids("bart", ["nine", "in 1889 by the king"], max_length=4, truncation=True)
    assert made["labels"].tolist()[1] == expected[1]
    assert made["labels"].shape == (2, 4)
    assert "labels" not in both.prepare_seq2seq_batch(QUESTIONS)
    short = both.prepare_seq2seq_batch(QUESTIONS, ["nine", "in 1889 by the king"], max_length=5)
    assert {len(row) for row in [*short["input_ids"], *short["labels"]]} == {5}


def test_saved_and_loaded(both: RagTokenizer, tmp_path: Path) -> None:
    both.save_pretrained(tmp_path)
    again = RagTokenizer.from_pretrained(tmp_path)
    assert again("the fee")["input_ids"] == ids("bert", "the fee")
    assert again(text_target="the fee")["input_ids"] == ids("bart", "the fee")


@pytest.mark.parametrize("part", ["question_encoder", "generator"])
def test_one_is_missing(tmp_path: Path, part: str) -> None:
    write_tokenizers(tmp_path)
    folder = tmp_path / f"{part}_tokenizer"
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(MissingError, match=f"has no folder {part}_tokenizer"):
        RagTokenizer.from_pretrained(tmp_path)
