from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch

from consilience.errors import UsageError
from consilience.model.decoding import DecodingOptions, Streams, Written, stream
from consilience.model.fusion import log_prior
from tests.model.tables import (
    QUESTIONS,
    SCORES,
    ShrinkingTables,
    TableGenerator,
    ask,
    ask_all,
    memory_of,
)

MODES: list[dict[str, Any]] = [
    {},
    {"fusion": "token"},
    {"beams": 4},
    {"beams": 4, "length_penalty": 1.0, "early_stopping": False, "limit": "cut"},
    {"beams": 4, "groups": 2, "diversity": 0.5},
    {"sample": True, "seed": 5},
    {"stop": ("4 3", "5")},
]


class ByteGenerator(TableGenerator):
    """Every token is one byte of a text of two-byte characters."""

    BYTES = (b"", b"", b"\xc3", b"\xa9", b"\xc3", b"\xa8", b"x")

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(self.BYTES[number] for number in ids).decode("utf-8", errors="replace")


def written(generator: TableGenerator, question: str, **options: Any) -> list[Written]:
    how = DecodingOptions(**{"max_new_tokens": 6} | options)
    return list(stream(generator, memory_of(generator, [question]), log_prior(SCORES), options=how))


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_stream_ends_with_what_decode_gives(mode: dict[str, Any], question: str) -> None:
    generator = TableGenerator(vocabulary=7)
    *tokens, last = written(generator, question, **mode)
    (expected,) = ask(generator, [question], **{"max_new_tokens": 6} | mode)
    assert last.answer is not None
    assert last.token is None
    assert last.answer.ids == expected.ids == [one.token for one in tokens]
    assert last.text == expected.text(generator)
    assert last.answer.log_likelihood == pytest.approx(expected.log_likelihood, abs=1e-5)
    torch.testing.assert_close(last.posterior, expected.posterior)
    for one, shares in zip(tokens, expected.token_posteriors, strict=True):
        assert one.answer is None
        torch.testing.assert_close(one.posterior, shares)
    texts = [one.text for one in [*tokens, last]]
    assert all(after.startswith(before) for before, after in pairwise(texts))


def test_a_token_is_handed_on_as_soon_as_it_is_written() -> None:
    """Before the second step is asked, the first token is there."""
    generator = TableGenerator(vocabulary=7)
    options = DecodingOptions(max_new_tokens=6, min_new_tokens=6)
    running = stream(generator, memory_of(generator, ["who"]), log_prior(SCORES), options=options)
    for steps in range(6):
        next(running)
        assert len(generator.asked) == steps
    assert not torch.is_inference_mode_enabled()


def test_beams_hand_on_what_they_have_in_common_before_they_end() -> None:
    generator = TableGenerator(vocabulary=7, sharpness=4.0)
    options = DecodingOptions(max_new_tokens=12, min_new_tokens=12, beams=2)
    running = stream(generator, memory_of(generator, ["who"]), log_prior(SCORES), options=options)
    seen = []
    for one in running:
        seen.append((one.token, len(generator.asked)))
    assert seen[0][1] < seen[-1][1]


def test_never_half_a_character() -> None:
    generator = ByteGenerator(vocabulary=7)
    for question in QUESTIONS:
        *tokens, last = written(
            generator, question, max_new_tokens=8, min_new_tokens=8, repetition_penalty=3.0
        )
        assert len(tokens) == 8
        for one in tokens[:-1]:
            assert not one.text.endswith("\N{REPLACEMENT CHARACTER}")
        assert last.answer is not None
        assert last.text == generator.decode(last.answer.ids)


def test_the_beginning_of_a_stop_string_is_held_back() -> None:
    generator = TableGenerator(vocabulary=7)
    (free,) = ask(generator, ["what"], max_new_tokens=6, min_new_tokens=6)
    text = generator.decode(free.ids)
    stop = text[4:7]
    tokens = written(generator, "what", max_new_tokens=6, min_new_tokens=6, stop=(stop,))
    assert tokens[-1].text == text.split(stop)[0]
    for one in tokens:
        assert text.split(stop)[0].startswith(one.text)


def test_only_one_answer_to_one_question_is_streamed() -> None:
    generator = TableGenerator(vocabulary=7)
    memory = memory_of(generator, ["who", "what"])
    weights = log_prior(SCORES.expand(2, -1))
    with pytest.raises(UsageError, match="received 1 answers to 2 questions"):
        next(stream(generator, memory, weights, options=DecodingOptions()))
    several = DecodingOptions(beams=2, returned=2)
    with pytest.raises(UsageError, match="received 2 answers to 1 questions"):
        next(stream(generator, memory[:3], weights[:1], options=several))
    thorough = DecodingOptions(search="thorough")
    with pytest.raises(UsageError, match="knows no token before it knows the answer"):
        next(stream(generator, memory[:3], weights[:1], options=thorough))


def streams(generator: TableGenerator, questions: Sequence[str], **options: Any) -> Streams:
    how = DecodingOptions(**{"max_new_tokens": 6} | options)
    weights = log_prior(SCORES.expand(len(questions), -1))
    return Streams(generator, memory_of(generator, questions), weights, options=how)


def followed(running: Streams) -> dict[int, list[Written]]:
    """All that was written of each question."""
    found: dict[int, list[Written]] = {question: [] for question in running.open}
    while running.open:
        for question, one in running.step():
            found[question].append(one)
    return found


@pytest.mark.parametrize("tables", [TableGenerator, ShrinkingTables])
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_questions_side_by_side_are_written_as_each_alone(
    mode: dict[str, Any], tables: type[TableGenerator]
) -> None:
    generator = tables(vocabulary=7, none=True)
    together = followed(streams(generator, QUESTIONS, **mode))
    for place, question in enumerate(QUESTIONS):
        alone = written(TableGenerator(vocabulary=7, none=True), question, **mode)
        assert [(one.text, one.token) for one in together[place]] == [
            (one.text, one.token) for one in alone
        ]
        for one, other in zip(together[place], alone, strict=True):
            torch.testing.assert_close(one.posterior, other.posterior, atol=1e-5, rtol=1e-5)


def test_a_question_is_handed_on_when_it_is_settled_and_not_when_all_are() -> None:
    generator = ShrinkingTables(vocabulary=7)
    expected = [len(one.ids) for one in ask(generator, QUESTIONS, max_new_tokens=6)]
    assert len(set(expected)) > 1
    running, ended, steps = streams(generator, QUESTIONS), {}, 0
    while running.open:
        for question, one in running.step():
            if one.answer is not None:
                ended[question] = steps
        steps += 1
    assert [min(length, 6) for length in expected] == [ended[place] for place in range(4)]


def test_a_dropped_question_leaves_the_batch_and_changes_no_other() -> None:
    generator = ShrinkingTables(vocabulary=7)
    options = {"min_new_tokens": 6, "beams": 3}
    whole = followed(streams(generator, QUESTIONS, **options))
    generator.asked.clear()
    running = streams(generator, QUESTIONS, **options)
    first = running.step()
    for question in (0, 2, 2):
        running.drop(question)
    assert running.open == [1, 3]
    rest = followed(running)
    assert rest.keys() == {1, 3}
    assert {rows for rows, _ in generator.asked} == {6}
    for place in (1, 3):
        found = [one for question, one in first if question == place] + rest[place]
        assert [one.text for one in found] == [one.text for one in whole[place]]


def test_when_every_question_is_dropped_nothing_is_asked_any_more() -> None:
    generator = ShrinkingTables(vocabulary=7)
    running = streams(generator, QUESTIONS[:2])
    running.drop(0)
    running.drop(1)
    assert (running.step(), running.open, generator.asked) == ([], [], [])


def test_several_answers_come_at_the_end() -> None:
    generator = ShrinkingTables(vocabulary=7)
    options: dict[str, Any] = {"beams": 4, "returned": 3, "max_new_tokens": 6}
    expected = ask_all(generator, QUESTIONS, **options)
    together = followed(streams(generator, QUESTIONS, **options))
    for place, answers in enumerate(expected):
        last = together[place][-1]
        assert last.answer is not None
        assert [one.ids for one in (last.answer, *last.further)] == [one.ids for one in answers]
        assert all(one.answer is None for one in together[place][:-1])


def test_the_support_is_known_before_the_first_token() -> None:
    generator = ShrinkingTables(vocabulary=7, none=True)
    running = streams(generator, QUESTIONS)
    expected = [one.support for one in ask(generator, QUESTIONS)]
    assert [one.support for one in running.prospects] == pytest.approx(expected, abs=1e-6)
