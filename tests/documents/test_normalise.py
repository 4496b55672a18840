"""Cleaning of extracted text, and the joining of wrapped lines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilience.documents.normalise import clean, join_wrapped, joint, one_line, storable

anything = st.text(st.characters(exclude_categories=()), max_size=60)


def test_line_ends_controls_and_blank_lines() -> None:
    assert clean("a\r\nb\rc\fd\u2028e") == "a\nb\nc\nd\ne"
    assert clean("a \t\n\n\n\n\nb") == "a\n\nb"
    assert clean("a\0b\ud800c\u00add\ufeff\x07e") == "abcde"


@given(anything)
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    once.encode("utf-8")
    assert "\0" not in once
    assert "\r" not in once
    assert "\n\n\n" not in once


@given(anything)
def test_one_line_is_one_line(text: str) -> None:
    line = one_line(text)
    assert line == " ".join(line.split())


@given(anything)
def test_storable_text_keeps_every_offset(text: str) -> None:
    stored = storable(text)
    stored.encode("utf-8")
    assert len(stored) == len(text)
    assert all(new in (old, "\ufffd") for new, old in zip(stored, text, strict=True))


@pytest.mark.parametrize(
    ("left", "right", "between"),
    [
        ("the ward", "opens", " "),
        ("病房每天", "九点", ""),
        ("开放，", "二十点", ""),
        ("费用为", "5元", ""),
        ("2025年2月", "10日", ""),
        ("", "x", ""),
        ("blank ", "x", ""),
    ],
)
def test_what_stands_between_two_pieces(left: str, right: str, between: str) -> None:
    assert joint(left, right) == between


def test_han_and_digits_stand_as_elsewhere_on_the_page() -> None:
    assert joint("每笔", "230 元", around="共 5 件，最低 150 元，2025年") == " "
    assert joint("每笔", "230元", around="共5件，最低 150 元，2025年") == ""


@pytest.mark.parametrize(
    ("left", "right", "joined"),
    [
        ("will pub-", "lish it", "will publish it"),
        ("will pub\x02", "lish it", "will publish it"),
        ("a state-of-the-", "art plan", "a state-of-the-art plan"),
        ("for the long-", "term plan", "for the long-term plan"),
        ("rooms A-", "B", "rooms A-B"),
        ("pages 3\x02", "4", "pages 3-4"),
        ("a dash -", "then", "a dash - then"),
        ("第一行", "第二行", "第一行第二行"),
    ],
)
def test_wrapped_lines_become_one(left: str, right: str, joined: str) -> None:
    assert join_wrapped(left, right, around="a long-term plan") == joined
