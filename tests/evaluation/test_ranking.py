"""By hand, and against trec_eval by way of ir-measures."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilience.evaluation.ranking import ndcg_at, recall_at, reciprocal_rank_at


def test_worked_out_by_hand() -> None:
    found = [False, True, False, True]
    assert recall_at(1, found, relevant=3) == 0.0
    assert recall_at(4, found, relevant=3) == pytest.approx(2 / 3)
    assert reciprocal_rank_at(10, found) == 0.5
    assert reciprocal_rank_at(1, found) == 0.0
    best = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert ndcg_at(10, found, relevant=3) == pytest.approx(
        (1 / math.log2(3) + 1 / math.log2(5)) / best
    )


def test_the_best_ranking_is_no_longer_than_the_cut() -> None:
    assert ndcg_at(2, [True, True, False], relevant=5) == 1.0


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=25), st.integers(0, 3), st.sampled_from([1, 5, 10, 20]))
def test_equals_trec_eval(found: list[bool], missing: int, k: int) -> None:
    measures = pytest.importorskip("ir_measures")
    relevant = sum(found) + missing
    if not relevant:
        return
    run = {"q": {f"d{place:02}": 100.0 - place for place in range(len(found))} | {"end": 0.0}}
    judged = {f"d{place:02}": 1 for place, one in enumerate(found) if one}
    judged |= {f"missing{i}": 1 for i in range(missing)}
    wanted = [measures.R @ k, measures.RR @ k, measures.nDCG @ k]
    expected = measures.calc_aggregate(wanted, {"q": judged}, run)
    ours = (
        recall_at(k, found, relevant=relevant),
        reciprocal_rank_at(k, found),
        ndcg_at(k, found, relevant=relevant),
    )
    assert ours == pytest.approx([expected[one] for one in wanted])
