import pytest
from hypothesis import given

from consilience.text import split_sentences
from tests.text.strategies import texts


def sentences(text: str) -> list[str]:
    return [text[span.start : span.end] for span in split_sentences(text)]


@pytest.mark.parametrize(
    "expected",
    [
        ["It cost 3.5 million.", "Nobody paid."],
        ["Dr. Smith met J. K. Rowling at 5 p.m. on Monday.", "They talked."],
        ["See Fig. 3 and No. 5, e.g. This one."],
        ["Was it No. 5?", "No.", "We left."],
        ["He works for Apple Inc.", "The company pays well."],
        ["Apple Inc. Chief Tim Cook spoke."],
        ["I live in the U.S.", "It is large."],
        ["It grew...", "Then it shrank."],
        ["Well... maybe."],
        ["Was it you?", "Yes!", "No?!", "Fine."],
        ["“Stop!” he said.", "“Go.”", "She went."],
        ["He left (at noon.)", "She stayed."],
        ["1. First item of the list.", "Another sentence."],
        ["Visit www.example.com today.", "Thanks."],
        ["Take vitamin C.", "It helps."],
    ],
)
def test_english(expected: list[str]) -> None:
    assert sentences(" ".join(expected)) == expected


@pytest.mark.parametrize(
    "expected",
    [
        ["合同生效。", "双方签字！", "可以吗？", "第一；", "第二。"],
        ["他说：“我来。”", "然后走了……", "真的吗？！", "是。"],
        ["（完。）", "下一句。"],
        ["价格是3.5元。", "很便宜。"],
        ["好吗?", "可以!", "走吧。"],
        ["使用Python 3.11版本。", "不支持v2.0。"],
        ["申請人應於三十日內提出。", "逾期不予受理。"],
    ],
)
def test_chinese(expected: list[str]) -> None:
    assert sentences("".join(expected)) == expected


def test_mixed_languages() -> None:
    assert sentences("They left. 他们走了。Then it rained.") == [
        "They left.",
        "他们走了。",
        "Then it rained.",
    ]


def test_other_scripts() -> None:
    assert sentences("नमस्ते। अच्छा। هل أنت هنا؟ نعم.") == ["नमस्ते।", "अच्छा।", "هل أنت هنا؟", "نعم."]


def test_blank_lines_end_a_sentence_and_wrapped_lines_do_not() -> None:
    text = "A heading\n\nThis line is wrapped\nand goes on here.\nThis is another."
    assert sentences(text) == [
        "A heading",
        "This line is wrapped\nand goes on here.",
        "This is another.",
    ]


def test_wrapped_chinese_goes_on_but_short_lines_are_items() -> None:
    wrapped = "本办法所称专项资金是指由中央财政预算安排用于支持\n企业技术改造的资金。"
    assert sentences(wrapped) == [wrapped]
    assert sentences("第一项\n第二项") == ["第一项", "第二项"]


def test_a_mark_is_not_parted_from_what_combines_with_it() -> None:
    assert sentences("好。\u0301对") == ["好。\u0301对"]


@given(texts)
def test_sentences_are_in_order_and_hold_all_visible_text(text: str) -> None:
    position = 0
    for span in split_sentences(text):
        inside = text[span.start : span.end]
        assert inside
        assert inside == inside.strip()
        assert not text[position : span.start].strip()
        position = span.end
    assert not text[position:].strip()
