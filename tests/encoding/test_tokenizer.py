from hypothesis import given
from hypothesis import strategies as st

from tests.tiny import tiny_tokenizer

WORDS = tiny_tokenizer()
TEXTS = st.text(
    st.sampled_from("abc XYZ 09.,是時間门診費e\u0301😀👨‍👩‍👧שלום\u200fＡ１①ﬁ\n\t"), max_size=60
)


@given(TEXTS)
def test_offsets_lie_in_the_text_and_never_go_back(text: str) -> None:
    (tokens,) = WORDS.encode([text])
    assert len(tokens.ids) == len(tokens.offsets)
    last = 0
    for start, end in tokens.offsets:
        assert 0 <= start <= end <= len(text)
        assert start >= last or end > last
        last = max(last, start)


def test_traditional_and_simplified_are_one() -> None:
    simplified, traditional = WORDS.encode(["门诊时间", "門診時間"])
    assert simplified == traditional
    assert WORDS.unknown not in simplified.ids


def test_capitals_and_wide_forms_are_folded_and_keep_their_place() -> None:
    (tokens,) = WORDS.encode(["Ｔhe FEE"])
    assert WORDS.words(tokens.ids) == ["the", "fee"]
    assert tokens.offsets == [(0, 3), (4, 7)]


def test_chinese_is_written_without_spaces() -> None:
    (tokens,) = WORDS.encode(["门诊 the fee 时间"])
    assert WORDS.decode(tokens.ids) == "门诊the fee时间"


def test_special_tokens_cannot_be_written_by_text() -> None:
    (tokens,) = WORDS.encode(["[NONE] [SEP]"])
    assert WORDS.none not in tokens.ids
    assert WORDS.separator not in tokens.ids
