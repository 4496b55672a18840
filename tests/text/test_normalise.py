import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilience.text import fold_han


@pytest.mark.parametrize(
    ("traditional", "simplified"),
    [
        ("鮭魚在東北太平洋", "鲑鱼在东北太平洋"),
        ("頭髮與發展、麵條與面子", "头发与发展、面条与面子"),
        ("後來皇后說", "后来皇后说"),
        ("Taipei 臺北 2024", "Taipei 台北 2024"),
    ],
)
def test_traditional_becomes_simplified(traditional: str, simplified: str) -> None:
    assert fold_han(traditional) == simplified


@pytest.mark.parametrize("text", ["", "plain ASCII", "简体中文", "ひらがな 한글 é 👩‍👩‍👧", "著名"])
def test_other_text_is_left_alone(text: str) -> None:
    assert fold_han(text) == text


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_offsets_stay_and_folding_twice_is_folding_once(text: str) -> None:
    folded = fold_han(text)
    assert len(folded) == len(text)
    assert fold_han(folded) == folded


def test_every_character_of_unicode_folds_to_exactly_one() -> None:
    everything = "".join(map(chr, range(0x110000)))
    folded = fold_han(everything)
    assert len(folded) == len(everything)
    assert fold_han(folded) == folded
