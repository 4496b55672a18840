import pytest

from consilience.generation.base import Stretch
from consilience.generation.finding import find_text


@pytest.mark.parametrize(
    ("text", "passage", "found"),
    [
        ("25.50 yuan (all)", "costs 25.50\n  YUAN (all)", "25.50\n  YUAN (all)"),
        ("门诊 时间", "有门诊时间。", "门诊时间"),
        ("the fee", "the fee, the fee", "the fee"),
        ("a.b", "axb", ""),
        ("5", "costs 25", ""),
        ("5", "costs 25 or 5", "5"),
        ("cat", "concatenate", ""),
        ("ab c", "abc", ""),
        ("(5)", "x(5)y", "(5)"),
        ("", "anything", ""),
    ],
)
def test_the_first_place_is_found(text: str, passage: str, found: str) -> None:
    stretches = find_text(text, passage)
    assert [passage[one.start : one.end] for one in stretches] == ([found] if found else [])


def test_of_two_places_the_first() -> None:
    assert find_text("the fee", "The fee, the fee") == [Stretch(0, 7)]
