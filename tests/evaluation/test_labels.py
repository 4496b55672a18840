import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilience.evaluation.labels import accuracy, macro_f1, macro_f1_statistic


def test_worked_out_by_hand() -> None:
    answers, labels = ["yes", "yes", "yes"], ["yes", "yes", "no"]
    assert accuracy(answers, labels) == pytest.approx(2 / 3)
    # yes: 2 * 2 / (3 + 2); no: 0
    assert macro_f1(answers, labels) == pytest.approx((4 / 5 + 0) / 2)


def test_an_answer_that_is_no_label_is_no_class() -> None:
    # yes: 2 * 1 / (1 + 2); the answer "maybe" only misses
    assert macro_f1(["yes", "maybe"], ["yes", "yes"]) == pytest.approx(2 / 3)


PAIRS = st.lists(st.tuples(st.sampled_from("abcx"), st.sampled_from("abc")), min_size=1)


@settings(deadline=None)
@given(PAIRS)
def test_macro_f1_equals_its_definition(pairs: list[tuple[str, str]]) -> None:
    answers, labels = zip(*pairs, strict=True)
    found = []
    for one in set(labels):
        true = sum(a == b == one for a, b in pairs)
        false = sum(a == one != b for a, b in pairs)
        missed = sum(b == one != a for a, b in pairs)
        found.append(2 * true / (2 * true + false + missed))
    assert macro_f1(answers, labels) == pytest.approx(sum(found) / len(found))


@settings(deadline=None)
@given(PAIRS, st.data())
def test_a_weight_of_two_is_a_question_twice(
    pairs: list[tuple[str, str]], data: st.DataObject
) -> None:
    counts = data.draw(st.lists(st.integers(0, 2), min_size=len(pairs), max_size=len(pairs)))
    repeated = [pair for pair, count in zip(pairs, counts, strict=True) for _ in range(count)]
    if repeated:
        weighted = macro_f1_statistic(*zip(*pairs, strict=True))(np.array([counts], float))[0]
        assert weighted == pytest.approx(macro_f1(*zip(*repeated, strict=True)))
