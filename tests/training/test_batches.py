from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilience.training.batches import LengthBuckets, mixture_weights


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 8), st.integers(0, 9))
def test_every_example_comes_once_an_epoch(lengths: list[int], size: int, seed: int) -> None:
    buckets = LengthBuckets(lengths, size=size, seed=seed, pool=2)
    batches = list(buckets)
    assert len(batches) == len(buckets)
    assert all(1 <= len(batch) <= size for batch in batches)
    assert Counter(i for batch in batches for i in batch) == Counter(range(len(lengths)))


def test_an_epoch_is_the_same_whenever_it_is_asked_for() -> None:
    one, two = (LengthBuckets(range(100), size=8, seed=3) for _ in range(2))
    first = list(one)
    one.set_epoch(1)
    second = list(one)
    two.set_epoch(1)
    assert list(two) == second
    assert first != second
    assert list(LengthBuckets(range(100), size=8, seed=4)) != first


def test_batches_hold_examples_of_like_length() -> None:
    lengths = [i % 97 for i in range(2000)]
    spread = [
        max(lengths[i] for i in batch) - min(lengths[i] for i in batch)
        for batch in LengthBuckets(lengths, size=10, seed=0)
    ]
    assert sum(spread) / len(spread) < 5


def test_weights_draw_more_of_what_weighs_more() -> None:
    weights = mixture_weights([900, 100], temperature=1e9)
    assert weights[0] * 900 == pytest.approx(0.5, abs=1e-6)
    each = [weights[0]] * 900 + [weights[1]] * 100
    drawn = [i for b in LengthBuckets([1] * 1000, size=10, seed=0, weights=each) for i in b]
    assert len(drawn) == 1000
    assert 400 < sum(i >= 900 for i in drawn) < 600


def test_at_temperature_one_every_example_counts_the_same() -> None:
    assert mixture_weights([3, 7], temperature=1) == pytest.approx([0.1, 0.1])
