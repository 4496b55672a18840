"""Values worked out by hand from the rules of the SQuAD and CMRC scorers, and both written anew."""

import re
import string
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilience.evaluation import exact_match, f1


def test_english_ignores_case_articles_and_punctuation() -> None:
    assert exact_match("The Denver Broncos.", ["denver broncos"]) == 1.0
    assert exact_match("Denver", ["denver broncos"]) == 0.0


def test_english_f1_counts_words_as_a_bag() -> None:
    # two words of the answer's three, and two of the reference's two
    assert f1("Broncos Denver team", ["the Denver Broncos"]) == pytest.approx(0.8)
    # a word that comes twice in both counts twice
    assert f1("Walla Walla town", ["Walla Walla"]) == pytest.approx(0.8)


def test_the_best_reference_counts() -> None:
    assert f1("1867", ["in the year 1867", "1867"]) == 1.0
    assert exact_match("1867", ["in the year 1867", "1867"]) == 1.0


def test_chinese_counts_the_longest_common_stretch() -> None:
    # 三个工作日 and 三个日: the longest stretch in both is 三个, two of five and two of three
    assert f1("三个工作日", ["三个日"], language="zh") == pytest.approx(2 * 2 / (5 + 3))
    assert exact_match("《三个工作日》。", ["三个工作日"], language="zh") == 1.0
    # three characters are the same, but only 年假 stands together
    assert f1("五天年假", ["五周年假"], language="zh") == 0.5


def test_latin_words_in_chinese_are_one_token() -> None:
    assert f1("MRI检查", ["MRI"], language="zh") == pytest.approx(2 * 1 / (3 + 1))


def test_numbers_in_chinese_keep_their_point() -> None:
    assert exact_match("3.5", ["35"], language="zh") == 0.0
    assert f1("3.5米", ["3.5"], language="zh") == pytest.approx(2 * 1 / (2 + 1))


def test_what_the_chinese_scorer_drops_joins_its_neighbours() -> None:
    assert exact_match("14:30-20:00", ["1430 2000"], language="zh") == 0.0
    assert exact_match("14:30-20:00", ["14302000"], language="zh") == 1.0


def test_no_reference_means_no_answer() -> None:
    assert exact_match("", []) == 1.0
    assert f1("something", []) == 0.0
    assert f1("", [], language="zh") == 1.0


# The rules of the English scorer, step by step: lower case, punctuation, articles, white space.
def squad_words(text: str) -> list[str]:
    kept = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", kept).split()


def squad_f1(answer: str, reference: str) -> float:
    left, right = squad_words(answer), squad_words(reference)
    if not left or not right:
        return float(left == right)
    same = sum((Counter(left) & Counter(right)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(left), same / len(right)
    return 2 * precision * recall / (precision + recall)


# Of letters alone a word hardly ever comes twice.
LETTERS = st.text(st.sampled_from("abT e.,'-0 "), max_size=24)
REPEATED = st.lists(st.sampled_from(["b", "B.", "e", "the", "0-b"]), max_size=6).map(" ".join)
WORDS = LETTERS | REPEATED


@settings(deadline=None)
@given(WORDS, st.lists(WORDS, min_size=1, max_size=3))
def test_english_equals_the_rules_written_anew(answer: str, references: list[str]) -> None:
    matches = [squad_words(answer) == squad_words(one) for one in references]
    assert exact_match(answer, references) == float(any(matches))
    assert f1(answer, references) == pytest.approx(max(squad_f1(answer, r) for r in references))


DROPPED = "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』"


@pytest.mark.parametrize("mark", DROPPED)
def test_every_mark_that_the_chinese_scorer_drops(mark: str) -> None:
    assert exact_match(f"五{mark}天", ["五天"], language="zh") == 1.0


@pytest.mark.parametrize("mark", ".,!?()…—【】‘;")
def test_every_other_mark_counts(mark: str) -> None:
    assert exact_match(f"五{mark}天", ["五天"], language="zh") == 0.0


def cmrc_tokens(text: str) -> list[str]:
    """Characters one at a time, what lies between them by NLTK's word tokenizer."""
    from nltk.tokenize import NLTKWordTokenizer

    tokens, waiting = [], ""
    for character in [c for c in text.lower().strip() if c not in DROPPED] + ["中"]:
        if re.match("[\u4e00-\u9fa5]", character):
            tokens += [*NLTKWordTokenizer().tokenize(waiting), character]
            waiting = ""
        else:
            waiting += character
    return tokens[:-1]


def cmrc_f1(answer: str, reference: str) -> float:
    left, right = cmrc_tokens(answer), cmrc_tokens(reference)
    runs = {tuple(left[i:j]) for i in range(len(left)) for j in range(i + 1, len(left) + 1)}
    common = max(
        (len(run) for run in runs if any(_stands_at(run, right, i) for i in range(len(right)))),
        default=0,
    )
    if common == 0:
        return 0.0
    precision, recall = common / len(left), common / len(right)
    return 2 * precision * recall / (precision + recall)


def _stands_at(run: tuple[str, ...], tokens: list[str], place: int) -> bool:
    return tuple(tokens[place : place + len(run)]) == run


# Of three pieces two are words: what is nothing but marks overlaps with nothing.
PIECES = st.sampled_from(["年", "假", "五", "天", "MRI", "3.5", "50%"])
MIXED = st.lists(PIECES | PIECES | st.sampled_from([" ", *DROPPED]), max_size=12)


@settings(deadline=None)
@given(MIXED, MIXED)
def test_chinese_equals_the_rules_written_anew(given_: list[str], right: list[str]) -> None:
    answer, reference = "".join(given_), "".join(right)
    if cmrc_tokens(answer) or cmrc_tokens(reference):  # two empty ones differ on purpose
        assert f1(answer, [reference], language="zh") == pytest.approx(cmrc_f1(answer, reference))
    plain = ["".join(c for c in t.lower().strip() if c not in DROPPED) for t in (answer, reference)]
    assert exact_match(answer, [reference], language="zh") == float(plain[0] == plain[1])


@settings(deadline=None)
@given(WORDS | st.text("年假五天ab ，", max_size=12), st.sampled_from(["en", "zh"]))
def test_a_text_answers_itself(text: str, language: str) -> None:
    assert exact_match(text, [text], language=language) == 1.0
    assert f1(text, [text], language=language) == 1.0
