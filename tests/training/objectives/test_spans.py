"""Questions that a text asks about itself, in both languages."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilience.training.objectives import (
    recurring_question,
    recurring_spans,
    salient_question,
    salient_spans,
)

TEXTS = st.text(alphabet="ab AB12年月《》“”。.,，\n 的中国", max_size=60)


def salient(text: str) -> list[tuple[str, str]]:
    return [(text[s.span.start : s.span.end], s.kind) for s in salient_spans(text)]


def recurring(text: str, longest: int = 10) -> list[str]:
    return [span.text for span in recurring_spans(text, longest=longest)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It opened on 5 May 2021.", [("5 May 2021", "date")]),
        ("It opened on May 12, 1999.", [("May 12, 1999", "date")]),
        ("In 1775, it burnt.", [("1775", "date")]),
        ("On 2021-03-04 it sank.", [("2021-03-04", "date")]),
        ("It has 1,200.50 yuan or 35%.", [("1,200.50", "number"), ("35%", "number")]),
        ("Some 1.8 million people.", [("1.8 million", "number")]),
        ("It belongs to Ada's aunt.", [("Ada", "name")]),
        ("He read of the War of the Roses.", [("War of the Roses", "name")]),
        (
            "She met O'Brien in Chad and Niger.",
            [("O'Brien", "name"), ("Chad", "name"), ("Niger", "name")],
        ),
        ("Really nice. Yes.", []),
        ("The Red Ferry sails.", [("Red Ferry", "name")]),
        ('He said "hello there" twice.', [("hello there", "quoted")]),
        ("二〇二四年五月一日开幕。", [("二〇二四年五月一日", "date")]),
        ("2023年8月17日开幕。", [("2023年8月17日", "date")]),
        ("8月8日开幕。", [("8月8日", "date")]),
        ("《红楼梦》共三百二十页。", [("红楼梦", "quoted"), ("三百二十页", "number")]),
        ("捐资60万元，工龄55年。", [("60万元", "number"), ("55年", "number")]),
        ("称为“头雁”，又称「带头人」。", [("头雁", "quoted"), ("带头人", "quoted")]),
        ("这是一个问题。", []),
        ("《 》和“……”里没有字。", []),
    ],
)
def test_what_looks_like_a_fact(text: str, found: list[tuple[str, str]]) -> None:
    assert salient(text) == found


@settings(deadline=None)
@given(TEXTS)
def test_facts_stand_in_order_and_apart(text: str) -> None:
    spans = [each.span for each in salient_spans(text)]
    assert all(0 <= span.start < span.end <= len(text) for span in spans)
    assert all(a.end <= b.start for a, b in pairwise(spans))


@settings(deadline=None)
@given(TEXTS, st.integers(0, 9))
def test_the_answer_stands_where_it_is_said_to(text: str, seed: int) -> None:
    for make in (salient_question, recurring_question):
        cloze = make(text, random.Random(seed))
        if cloze is not None:
            end = cloze.start + len(cloze.answer)
            assert cloze.context[cloze.start : end] == cloze.answer
            assert "___" in cloze.question
            assert cloze.answer.strip()


def test_a_salient_question_keeps_its_sentence_but_for_what_is_dropped() -> None:
    text = "The ferry is slow. It was built in 1912 by hand."
    cloze = salient_question(text, random.Random(0), dropped=0.0)
    assert cloze is not None
    assert (cloze.question, cloze.answer) == ("It was built in ___ by hand.", "1912")
    assert cloze.context == text
    dropped = salient_question(text, random.Random(0), dropped=1.0, blank="[?]")
    assert dropped is not None
    assert dropped.question == "[?]"


def test_text_without_facts_or_repetition_asks_nothing() -> None:
    assert salient_question("nothing to see here", random.Random(0)) is None
    assert recurring_question("nothing to see here", random.Random(0)) is None
    assert recurring_question("the fast ferry is a fast ferry", random.Random(0)) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The Red Ferry sails. At noon the red ferry rests.", ["Red Ferry"]),
        ("Red ferry, red paint. The red ferry.", ["Red", "Red ferry"]),
        ("It is of the and. It is of the and.", []),
        ("红楼梦很长。他在读红楼梦。", ["红楼梦"]),
        ("中国的歌。在中国唱。", ["中国"]),
        ("紅樓很老。红楼在此。", ["紅樓"]),
        ("ab cd. ab cd. ab cd.", ["ab cd"]),
        ("The fee is 12. Pay 12.", []),
        ("cold, cold water. Cold; cold.", ["cold"]),
        ("one two. Zero one, two.", ["one", "two"]),
    ],
)
def test_what_recurs(text: str, found: list[str]) -> None:
    assert recurring(text) == found


def test_a_stretch_that_is_too_long_is_not_cut_short() -> None:
    text = "alpha beta gamma delta epsilon. alpha beta gamma delta epsilon."
    assert recurring(text) == ["alpha beta gamma delta epsilon"]
    assert recurring(text, longest=5) == ["alpha beta gamma delta epsilon"]
    assert "alpha beta gamma delta epsilon" not in recurring(text, longest=4)


@settings(deadline=None)
@given(TEXTS)
def test_every_place_says_the_same(text: str) -> None:
    for each in recurring_spans(text):
        assert len(each.spans) > 1
        assert text[each.spans[0].start : each.spans[0].end] == each.text
        for span in each.spans:
            assert text[span.start : span.end].casefold().split() == each.text.casefold().split()
        assert all(a.end <= b.start for a, b in pairwise(each.spans))


def test_a_recurring_question_is_answered_from_the_rest_of_the_text() -> None:
    text = "The Red Ferry sails at dawn. Nobody knows why. At noon the Red Ferry rests."
    made = {recurring_question(text, random.Random(seed)) for seed in range(20)}
    assert {(each.question, each.context) for each in made if each is not None} == {
        ("The ___ sails at dawn.", " Nobody knows why. At noon the Red Ferry rests."),
        ("At noon the ___ rests.", "The Red Ferry sails at dawn. Nobody knows why. "),
    }


def test_an_answer_before_its_sentence_and_one_behind_it_stand_where_they_are_said_to() -> None:
    text = "The Red Ferry sails at dawn. Nobody knows why. At noon the Red Ferry rests."
    made = [recurring_question(text, random.Random(seed)) for seed in range(20)]
    assert {(each.context[each.start :], each.start) for each in made if each is not None} == {
        ("Red Ferry sails at dawn. Nobody knows why. ", 4),
        ("Red Ferry rests.", 31),
    }


def test_a_recurring_question_in_chinese() -> None:
    cloze = recurring_question("他在读红楼梦。红楼梦很长。", random.Random(1))
    assert cloze is not None
    assert cloze.question in {"他在读___。", "___很长。"}
    assert cloze.answer == "红楼梦"
    assert "红楼梦" in cloze.context
