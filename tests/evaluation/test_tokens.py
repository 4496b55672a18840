import pytest

from consilience.evaluation.tokens import contains, folded_tokens_of, tokens_of


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("ＭＲＩ检查 costs 1,200.", ["mri", "检", "查", "costs", "1", "200"]),
        ("カード", ["カ", "ー", "ド"]),
        ("Café_x", ["café", "x"]),
        ("…！", []),
    ],
)
def test_tokens(text: str, tokens: list[str]) -> None:
    assert tokens_of(text) == tokens


def test_traditional_characters_are_folded_only_to_be_found() -> None:
    assert tokens_of("銀行") == ["銀", "行"]
    assert folded_tokens_of("銀行") == ["银", "行"]


def test_containment_is_of_whole_tokens_in_a_row() -> None:
    assert contains(["a", "bc", "d"], ["bc", "d"])
    assert not contains(["a", "bc", "d"], ["b"])
    assert not contains(["a", "bc", "d"], ["a", "d"])
    assert not contains(["a"], [])
