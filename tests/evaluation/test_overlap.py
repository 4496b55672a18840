"""Against sacrebleu and rouge-score themselves, and by hand for Chinese."""

import builtins
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilience.errors import DependencyError
from consilience.evaluation import overlap
from consilience.evaluation.overlap import bleu, bleu_counts, bleu_statistic, rouge

SENTENCES = st.text("abc de天年假. ", max_size=30)


def test_rouge_of_chinese_by_hand() -> None:
    # 五天年假 and 五天: two of four and two of two; one pair of three and one of one
    found = rouge("五天年假", ["五天"])
    assert (found.rouge_1, found.rouge_2) == pytest.approx((2 / 3, 0.5))
    # 五 年 is the longest subsequence of 五天年 and 五年天 but for order
    assert rouge("五天年", ["五年天"]).rouge_l == pytest.approx(2 / 3)


def test_rouge_takes_the_best_reference_for_each() -> None:
    assert rouge("a b", ["x", "a b"]).rouge_2 == 1.0


@settings(deadline=None)
@given(st.text("abcd 12.,", max_size=30), st.text("abcd 12.,", max_size=30))
def test_rouge_of_plain_english_is_that_of_the_package(answer: str, reference: str) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    theirs = RougeScorer(["rouge1", "rouge2", "rougeL"]).score(reference, answer)
    ours = rouge(answer, [reference])
    assert (ours.rouge_1, ours.rouge_2, ours.rouge_l) == pytest.approx(
        tuple(theirs[name].fmeasure for name in ("rouge1", "rouge2", "rougeL"))
    )


@settings(deadline=None)
@given(
    st.lists(st.tuples(SENTENCES, SENTENCES, SENTENCES), min_size=1, max_size=6),
    st.sampled_from([("en", "13a"), ("zh", "zh")]),
)
def test_bleu_is_that_of_sacrebleu(rows: list[tuple[str, str, str]], how: tuple[str, str]) -> None:
    from sacrebleu.metrics import BLEU

    answers, first, second = map(list, zip(*rows, strict=True))
    theirs = BLEU(tokenize=how[1]).corpus_score(answers, [first, second]).score / 100
    pairs = list(zip(first, second, strict=True))
    assert bleu(answers, pairs, language=how[0]) == pytest.approx(theirs, abs=1e-9)


def test_bleu_of_chinese_counts_characters() -> None:
    counts = bleu_counts("五天年假", ["五天年假"], language="zh")
    assert (counts.matched, counts.length) == ((4, 3, 2, 1), 4)
    assert bleu(["五天年假"], [["五天年假"]], language="zh") == pytest.approx(1.0)


def test_bleu_of_a_resample_is_that_of_its_answers() -> None:
    pairs = [("a b c d e", "a b c d f"), ("a b c", "x b c d e"), ("e f g h i", "e f g h")]
    counts = [bleu_counts(a, [b]) for a, b in pairs]
    drawn = bleu_statistic(counts)(np.array([[2.0, 0.0, 1.0]]))[0]
    chosen = [pairs[0], pairs[0], pairs[2]]
    expected = bleu([a for a, _ in chosen], [[b] for _, b in chosen], language="en")
    assert drawn == pytest.approx(expected)


@pytest.fixture
def _nothing_installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    real = builtins.__import__

    def refusing(name: str, *rest: Any, **named: Any) -> Any:
        if name.split(".")[0] in {"rouge_score", "sacrebleu"}:
            raise ImportError(name)
        return real(name, *rest, **named)

    caches = (overlap._rouge_scorer, overlap._bleu)
    for cache in caches:
        cache.cache_clear()
    monkeypatch.setattr(builtins, "__import__", refusing)
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.mark.usefixtures("_nothing_installed")
def test_a_missing_package_is_named_with_the_line_that_installs_it() -> None:
    with pytest.raises(DependencyError, match="ROUGE needs the package rouge-score") as caught:
        overlap.require_overlap_packages()
    assert caught.value.hint == "pip install 'consilience[evaluation]'"
    with pytest.raises(DependencyError, match="BLEU needs the package sacrebleu"):
        bleu_counts("a", ["a"])
