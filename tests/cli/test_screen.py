import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilience.cli.screen import bar, one_line, safe

UNSEEN = {"Cc", "Cs", "Zl", "Zp"}

anything = st.text(st.characters(exclude_categories=()))
"""Any code points, halves of surrogate pairs among them."""


@given(anything)
def test_safe_text_cannot_steer_a_terminal(text: str) -> None:
    shown = safe(text)
    assert not any(
        unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in shown
    )
    assert not set(shown) & set("\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u2069")
    assert safe(shown) == shown
    shown.encode()


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_safe_leaves_readable_text_alone(text: str) -> None:
    assert safe(text) == text


def test_safe_keeps_joined_emoji_and_names_what_it_escapes() -> None:
    assert safe("👩‍🔬 \x1b[31m \u202etxt.exe \x9b") == r"👩‍🔬 \x1b[31m \u202etxt.exe \x9b"


@given(anything)
def test_one_line_is_one_line(text: str) -> None:
    assert len(one_line(text).splitlines()) <= 1


@given(st.floats(-1, 2), st.floats(-1, 2), st.integers(1, 40), st.sampled_from([" #", " ▌█"]))
def test_a_larger_share_never_has_a_shorter_bar(
    one: float, other: float, width: int, blocks: str
) -> None:
    low, high = (bar(share, width, blocks=blocks) for share in sorted((one, other)))
    assert len(low) == len(high) == width
    assert ink(low, blocks) <= ink(high, blocks)


def ink(drawn: str, blocks: str) -> int:
    return sum(blocks.index(block) for block in drawn)


@pytest.mark.parametrize(
    ("share", "drawn"),
    [(0.0, "    "), (1.0, "████"), (0.5, "██  "), (0.5 + 1 / 32, "██▏ "), (7.0, "████")],
)
def test_a_bar_is_drawn_in_eighths(share: float, drawn: str) -> None:
    assert bar(share, 4) == drawn
