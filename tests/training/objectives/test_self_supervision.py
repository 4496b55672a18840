"""Pairs made from plain text."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilience.errors import UsageError
from consilience.training.objectives import (
    TextPair,
    independent_crops,
    inverse_cloze,
    next_sentence_pairs,
    prefix_continuation,
)

ENGLISH = "Ash grows fast here. Oak lasts for ages. Elm is rare by now."
CHINESE = "白蜡树长得很快。橡树可以活几百年。榆树现在已经很少见了。"


class TestInverseCloze:
    @pytest.mark.parametrize("text", [ENGLISH, CHINESE])
    def test_the_sentence_leaves_its_text(self, text: str) -> None:
        seen = set()
        for seed in range(20):
            pair = inverse_cloze(text, random.Random(seed), kept=0.0)
            assert pair is not None
            assert pair.question in text
            assert pair.question not in pair.passage
            taken = len(pair.question) + len(pair.passage)
            assert taken in (len(text), len(text) - 1)  # a blank may go with the sentence
            seen.add(pair.question)
        assert len(seen) == 3

    def test_the_words_on_both_sides_do_not_touch(self) -> None:
        pairs = {inverse_cloze(ENGLISH, random.Random(seed), kept=0.0) for seed in range(20)}
        assert TextPair("Oak lasts for ages.", "Ash grows fast here. Elm is rare by now.") in pairs

    def test_how_often_the_sentence_stays(self) -> None:
        rng = random.Random(0)
        pairs = [inverse_cloze(ENGLISH, rng, kept=0.25) for _ in range(400)]
        stays = sum(pair is not None and pair.question in pair.passage for pair in pairs)
        assert 70 < stays < 130

    def test_one_sentence_or_none_long_enough_makes_no_pair(self) -> None:
        assert inverse_cloze("Only one sentence here.", random.Random(0)) is None
        assert inverse_cloze("Yes. No.", random.Random(0)) is None


class TestCrops:
    @settings(deadline=None)
    @given(size=st.integers(1, 80), seed=st.integers(0, 50))
    def test_both_are_stretches_of_the_document(self, size: int, seed: int) -> None:
        units = list(range(size))
        crops = independent_crops(units, random.Random(seed), dropped=0.0)
        assert crops is not None
        for crop in crops:
            assert crop == list(range(crop[0], crop[0] + len(crop)))
            assert 1 <= len(crop) <= max(1, round(size * 0.5))

    def test_they_are_drawn_independently(self) -> None:
        drawn = [independent_crops(range(100), random.Random(seed)) for seed in range(50)]
        pairs = [pair for pair in drawn if pair is not None]
        overlapping = [bool(set(first) & set(second)) for first, second in pairs]
        assert 0 < sum(overlapping) < 50

    def test_units_are_dropped_but_never_all(self) -> None:
        crops = independent_crops(range(1000), random.Random(0), least=1.0, most=1.0, dropped=0.3)
        assert crops is not None
        assert 640 < len(crops[0]) < 760
        assert crops[0] != crops[1]
        for seed in range(20):
            tiny = independent_crops([1], random.Random(seed), dropped=0.9)
            assert tiny == ([1], [1])

    def test_an_empty_document_and_shares_out_of_order(self) -> None:
        assert independent_crops([], random.Random(0)) is None
        with pytest.raises(UsageError, match="crops need 0 < least <= most <= 1"):
            independent_crops([1], random.Random(0), least=0.6)


class TestNextSentence:
    DOCUMENTS = (["a1", "a2", "a3"], [], ["b1", "b2"], ["c1"])

    def test_half_follow_and_half_come_from_elsewhere(self) -> None:
        rng = random.Random(0)
        pairs = [pair for _ in range(300) for pair in next_sentence_pairs(self.DOCUMENTS, rng)]
        assert [pair.first for pair in pairs[:3]] == ["a1", "a2", "b1"]
        for pair in pairs:
            follows = pair.second == f"{pair.first[0]}{int(pair.first[1]) + 1}"
            assert pair.follows is follows
            assert pair.follows or pair.second[0] != pair.first[0]
        assert 0.45 < sum(pair.follows for pair in pairs) / len(pairs) < 0.55

    def test_one_document_has_no_elsewhere(self) -> None:
        with pytest.raises(UsageError, match="need two documents, received 1"):
            next_sentence_pairs([["a", "b"], []], random.Random(0))


class TestPrefix:
    @settings(deadline=None)
    @given(
        size=st.integers(2, 50),
        seed=st.integers(0, 50),
        least=st.floats(0, 1),
        more=st.floats(0, 1),
    )
    def test_both_parts_make_up_the_text(
        self, size: int, seed: int, least: float, more: float
    ) -> None:
        most = least + (1 - least) * more
        parts = prefix_continuation(range(size), random.Random(seed), least=least, most=most)
        assert parts is not None
        assert all(parts)
        assert parts[0] + parts[1] == list(range(size))

    def test_the_cut_lies_where_it_may(self) -> None:
        cuts = set()
        for seed in range(200):
            parts = prefix_continuation(range(10), random.Random(seed), least=0.3, most=0.5)
            assert parts is not None
            cuts.add(len(parts[0]))
        assert cuts == {3, 4, 5}

    def test_too_short_a_text_and_shares_out_of_order(self) -> None:
        assert prefix_continuation([1], random.Random(0)) is None
        with pytest.raises(UsageError, match="a prefix needs 0 <= least <= most <= 1"):
            prefix_continuation([1, 2], random.Random(0), least=0.9, most=0.1)
