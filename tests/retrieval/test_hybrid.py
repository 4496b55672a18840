import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilience.errors import UsageError
from consilience.retrieval import HybridWeights
from consilience.retrieval.hybrid import SCALES, HybridRanker, Scale, by_ranks, fuse
from consilience.retrieval.ranking import EVERYTHING, Ranking, Scope

rankings = st.dictionaries(
    st.integers(0, 30), st.floats(-100, 100, allow_subnormal=False), max_size=20
).map(lambda scores: sorted(scores.items(), key=lambda ranked: (-ranked[1], ranked[0])))
shares = st.floats(0, 1)


@given(rankings, rankings, shares)
def test_a_fusion_ranks_the_union_between_0_and_1(
    lexical: Ranking, dense: Ranking, share: float
) -> None:
    fused = fuse(lexical, dense, share=share)
    assert {n for n, _ in fused} == {n for n, _ in lexical} | {n for n, _ in dense}
    assert [s for _, s in fused] == sorted((s for _, s in fused), reverse=True)
    assert all(-1e-9 <= score <= 1 + 1e-9 for _, score in fused)


@given(rankings, shares.filter(lambda share: share < 0.99))
def test_where_the_dense_half_has_nothing_bm25_decides(lexical: Ranking, share: float) -> None:
    scores = dict(lexical)
    fused = [scores[number] for number, _ in fuse(lexical, [], share=share)]
    assert fused == pytest.approx(sorted(fused, reverse=True), abs=1e-9)


@given(rankings, rankings, shares)
def test_what_both_halves_rank_higher_is_ranked_higher(
    lexical: Ranking, dense: Ranking, share: float
) -> None:
    by_words, by_vectors, fused = (
        dict(lexical),
        dict(dense),
        dict(fuse(lexical, dense, share=share)),
    )
    both = sorted(by_words.keys() & by_vectors.keys())
    for a in both:
        for b in both:
            if by_words[a] >= by_words[b] and by_vectors[a] >= by_vectors[b]:
                assert fused[a] >= fused[b] - 1e-9


def test_a_worked_example() -> None:
    lexical = [(1, 30.0), (2, 20.0), (3, 10.0)]
    dense = [(2, 0.9), (4, 0.5)]
    assert fuse(lexical, dense, share=0.25) == [(1, 0.75), (2, 0.625), (3, 0.0), (4, 0.0)]


def test_a_single_candidate_has_the_full_score_of_its_half() -> None:
    assert fuse([(1, 3.0)], [], share=0.4) == [(1, 0.6)]


class Fixed:
    """A ranker with one answer, which remembers how it was asked."""

    def __init__(self, ranking: Ranking) -> None:
        self.ranking = ranking
        self.depths: list[int] = []

    def rank(self, question: str, *, depth: int, scope: Scope = EVERYTHING) -> Ranking:
        self.depths.append(depth)
        return self.ranking[:depth]


@pytest.mark.parametrize(
    ("question", "first"), [("合同何时生效？", 1), ("When does it apply?", 2), ("いつですか", 3)]
)
def test_the_weight_goes_by_the_language_of_the_question(question: str, first: int) -> None:
    lexical, dense = Fixed([(1, 9.0), (3, 8.0), (2, 1.0)]), Fixed([(2, 0.9), (3, 0.8), (1, 0.1)])
    ranker = HybridRanker(lexical, dense, HybridWeights(zh=0.0, en=1.0, other=0.5))
    assert ranker.rank(question, depth=5)[0][0] == first


def test_a_half_without_weight_is_not_asked() -> None:
    lexical, dense = Fixed([(1, 1.0)]), Fixed([(1, 1.0)])
    ranker = HybridRanker(lexical, dense, HybridWeights(zh=0.0, en=1.0))
    ranker.rank("合同何时生效？", depth=5)
    assert (lexical.depths, dense.depths) == ([100], [])
    ranker.rank("When does it apply?", depth=500)
    assert (lexical.depths, dense.depths) == ([100], [500])


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_weights_outside_0_and_1_are_refused(share: float) -> None:
    with pytest.raises(UsageError, match=r"^hybrid weights must lie between 0 and 1, received Hyb"):
        HybridWeights(en=share)


NAN = float("nan")


def test_rankings_without_scores_are_fused_by_their_ranks() -> None:
    lexical, dense = [(1, NAN), (2, NAN), (3, NAN)], [(3, 0.9), (4, 0.8)]
    fused = dict(fuse(lexical, dense, share=0.5))
    assert fused[1] == pytest.approx(0.5)
    assert fused[3] == pytest.approx(0.5 * (11 / 13) + 0.5)
    assert fuse(lexical, dense, share=0.5)[0][0] == 3
    assert fused == dict(fuse([(1, 9.0), (2, 5.0), (3, 1.0)], dense, share=0.5, scale="ranks"))


def test_reciprocal_ranks_begin_at_one_with_the_constant_that_measured_best() -> None:
    assert by_ranks([(7, 5.0), (8, 4.0), (9, 4.0)]) == {7: 1.0, 8: 11 / 12, 9: 11 / 13}
    assert by_ranks([]) == {}


@pytest.mark.parametrize("scale", SCALES)
@given(rankings)
def test_every_scale_keeps_the_order_between_0_and_1(scale: Scale, ranking: Ranking) -> None:
    scaled = list(SCALES[scale](ranking).values())
    assert all(0 <= one <= 1 for one in scaled)
    assert scaled == sorted(scaled, reverse=True)
