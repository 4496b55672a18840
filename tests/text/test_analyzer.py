from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given

from consilience.text import analyze, analyze_question, analyzer, fold_han
from tests.text.strategies import texts


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        (" \n\t", []),
        ("running runners RAN", ["run", "runner", "ran"]),
        ("What is the capital of France?", ["is", "capit", "franc"]),
        ("ＡＢＣ１２３", ["abc123"]),
        ("São Straße", ["sao", "strass"]),
        ("İstanbul", ["istanbul"]),
        ("हिन्दी", ["हिन्दी"]),
    ],
)
def test_words(text: str, tokens: list[str]) -> None:
    assert analyze(text) == tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("合同", ["合", "同", "合同"]),
        ("年", ["年"]),
        ("鮭魚", ["鲑", "鱼", "鲑鱼"]),
        ("IT部门", ["it", "部", "门", "部门"]),
        ("iPhone15的", ["iphone15", "的"]),
        ("合同。签署", ["合", "同", "合同", "签", "署", "签署"]),
        ("カナ", ["カ", "ナ", "カナ"]),
        ("한국", ["한", "국", "한국"]),
    ],
)
def test_characters_and_neighbours(text: str, tokens: list[str]) -> None:
    assert analyze(text) == tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("1,200.50", ["1200.50"]),
        ("1,234,567", ["1234567"]),
        ("1,23", ["1", "23"]),
        ("2024-05-01", ["2024", "5", "1"]),
        ("2024.05.01", ["2024", "5", "1"]),
        ("v2.1", ["2.1"]),
        ("5km", ["5km", "5", "km"]),
        ("the 1990s", ["1990s", "1990", "s"]),
        ("agent 007", ["agent", "007"]),
        ("192.168.1.1", ["192", "168", "1", "1"]),
        ("anna.li@example.com", ["anna", "li", "exampl", "com"]),
        ("snake_case", ["snake", "case"]),
    ],
)
def test_numbers_and_addresses(text: str, tokens: list[str]) -> None:
    assert analyze(text) == tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("the company's", ["compani"]),
        ("the company’s", ["compani"]),
        ("COMPANY'S", ["compani"]),
        ("I don't", ["i"]),
        ("they'll", ["they"]),
        ("O'Brien", ["o", "brien"]),
        ("e-mail", ["e", "mail", "email"]),
        ("e‑mail", ["e", "mail", "email"]),
        ("COVID-19", ["covid", "19", "covid19"]),
        ("24-hour", ["24", "hour"]),
        ("state-of-the-art", ["state", "art"]),
        ("U.S.", ["us"]),
        ("apples,oranges", ["appl", "orang"]),
    ],
)
def test_apostrophes_hyphens_and_dots(text: str, tokens: list[str]) -> None:
    assert analyze(text) == tokens


@pytest.mark.parametrize("around", ["{}", "({}),", "[{}]?!", '"{}."', "“{}”", "{}…", "{}\u200b"])
def test_punctuation_around_a_word_changes_nothing(around: str) -> None:
    for word in ("running", "U.S.", "COVID-19", "WHO", "São", "鮭魚", "5km"):
        assert analyze(f"a {around.format(word)} b") == analyze(f"a {word} b")


def test_a_long_word_is_not_remembered() -> None:
    for length in (40, 41):
        before = analyzer._remembered.cache_info().currsize
        assert analyze("q" * length) == ["q" * length]
        assert analyzer._remembered.cache_info().currsize - before == (length <= 40)


def test_threads_may_analyze_at_once() -> None:
    words = [f"{stem}{ending}" for stem in WORD_STEMS for ending in ("ing", "ed", "s", "ers")]
    expected = [analyze(word) for word in words]
    analyzer._remembered.cache_clear()
    with ThreadPoolExecutor(8) as threads:
        assert [*threads.map(analyze, words * 20)] == expected * 20


WORD_STEMS = [f"{a}{b}{c}ate" for a in "bdkmp" for b in "aeio" for c in "lnrst"]


def test_capitals_tell_a_name_from_a_question_word() -> None:
    assert analyze("Who leads the WHO?") == ["lead", "who"]


def test_simplified_question_and_traditional_passage_share_all_tokens() -> None:
    assert analyze("阿拉斯加的鲑鱼") == analyze("阿拉斯加的鮭魚")


def test_iso_and_chinese_dates_meet() -> None:
    assert {"2024", "5", "1"} <= set(analyze("2024-05-01")) & set(analyze("2024年5月1日"))


@pytest.mark.parametrize(
    ("question", "like"),
    [
        ("年假有多少天？", "年假有 天"),
        ("誰是主席？", " 是主席"),
        ("请问怎么报销吗", "报销"),
        ("什麼是鋼結構", "是钢结构"),
        ("几何是什么", "几何"),
    ],
)
def test_questions_lose_chinese_question_words(question: str, like: str) -> None:
    assert analyze_question(question) == analyze(like)


def test_a_question_of_question_words_keeps_them() -> None:
    assert analyze_question("为什么") == analyze("为什么") != []


def test_passages_keep_chinese_question_words() -> None:
    assert "什么" in analyze("没有什么问题")


@given(texts)
def test_tokens_survive_a_split_at_blanks_and_are_folded(text: str) -> None:
    tokens = analyze(text)
    assert " ".join(tokens).split() == tokens
    assert all(token and fold_han(token) == token for token in tokens)


@given(texts)
def test_case_and_width_do_not_matter_in_lower_case_text(text: str) -> None:
    lowered = fold_han(text.lower())
    assert analyze(lowered) == analyze(fold_han(lowered))
