"""Values worked out by hand from the rules of the SQuAD and CMRC scorers."""

import pytest

from consilience.evaluation import exact_match, f1


def test_english_ignores_case_articles_and_punctuation() -> None:
    assert exact_match("The Denver Broncos.", ["denver broncos"]) == 1.0
    assert exact_match("Denver", ["denver broncos"]) == 0.0


def test_english_f1_counts_words_as_a_bag() -> None:
    # two words of the answer's three, and two of the reference's two
    assert f1("Broncos Denver team", ["the Denver Broncos"]) == pytest.approx(0.8)


def test_the_best_reference_counts() -> None:
    assert f1("1867", ["in the year 1867", "1867"]) == 1.0


def test_chinese_counts_the_longest_common_stretch() -> None:
    # 三个工作日 and 三个日: the longest stretch in both is 三个, two of five and two of three
    assert f1("三个工作日", ["三个日"], language="zh") == pytest.approx(2 * 2 / (5 + 3))
    assert exact_match("《三个工作日》。", ["三个工作日"], language="zh") == 1.0


def test_latin_words_in_chinese_are_one_token() -> None:
    assert f1("MRI检查", ["MRI"], language="zh") == pytest.approx(2 * 1 / (3 + 1))


def test_no_reference_means_no_answer() -> None:
    assert exact_match("", []) == 1.0
    assert f1("something", []) == 0.0
