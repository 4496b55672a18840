import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from consilience.federation.privacy.clipping import (
    LEVELS,
    LOSS_SHARE,
    MOST_LOSS,
    Told,
    clipped,
    contribution,
    mean_loss,
    noised,
    summed,
)

numbers = st.floats(allow_nan=True, allow_infinity=True, width=32)
losses = st.floats(allow_nan=True, allow_infinity=True)
longests = st.floats(1e-6, 1e6)


def questions_of(record: int, rows: list[tuple[list[float], float]]) -> list[Told]:
    return [Told(record, torch.tensor(values), loss) for values, loss in rows]


rows = st.lists(
    st.tuples(st.lists(numbers, min_size=5, max_size=5), losses), min_size=1, max_size=6
)


@given(rows, longests)
@settings(max_examples=100, deadline=None)
def test_no_record_adds_more_than_the_longest(
    rows: list[tuple[list[float], float]], longest: float
) -> None:
    found = contribution(questions_of(0, rows), longest)
    assert bool(torch.isfinite(found).all())
    assert torch.equal(found, found.round())
    assert float(found.norm()) <= LEVELS * (1 + 1e-12)


@given(st.lists(rows, min_size=1, max_size=5), rows, longests)
@settings(max_examples=60, deadline=None)
def test_sums_of_neighbouring_data_sets_differ_by_the_longest_at_most(
    records: list[list[tuple[list[float], float]]],
    one_more: list[tuple[list[float], float]],
    longest: float,
) -> None:
    told = [one for place, rows in enumerate(records) for one in questions_of(place, rows)]
    without = summed(told, size=5, longest=longest)
    with_it = summed([*told, *questions_of(99, one_more)], size=5, longest=longest)
    first = summed([*questions_of(99, one_more), *told], size=5, longest=longest)
    assert torch.equal(with_it, first)  # whole numbers: the order does not matter
    assert float((with_it - without).norm()) <= LEVELS * (1 + 1e-12)


def test_a_user_of_many_questions_counts_once() -> None:
    """A thousand questions that pull one way, as one record and as a thousand."""
    gradient = torch.tensor([3.0, 4.0])
    as_one = summed((Told(0, gradient, 50.0) for _ in range(1000)), size=2, longest=1.0)
    as_many = summed((Told(i, gradient, 50.0) for i in range(1000)), size=2, longest=1.0)
    assert float(as_one.norm()) == pytest.approx(LEVELS, rel=1e-6)
    assert float(as_many.norm()) == pytest.approx(1000 * LEVELS, rel=1e-6)


def test_short_vectors_stay_as_they_are_and_long_ones_keep_their_direction() -> None:
    short, long = torch.tensor([0.3, 0.4]), torch.tensor([30.0, -40.0])
    assert torch.equal(clipped(short, 1.0), short.double())
    assert torch.allclose(clipped(long, 2.0), torch.tensor([1.2, -1.6]).double())
    assert not clipped(torch.tensor([1.0, math.nan]), 1.0).any()
    assert not clipped(torch.tensor([1.0, math.inf]), 1.0).any()
    assert not clipped(torch.zeros(3), 1.0).any()


def test_the_gradients_of_a_record_are_added_before_they_are_clipped() -> None:
    opposite = [Told(0, torch.tensor([9.0, 0.0]), 1.0), Told(0, torch.tensor([-9.0, 0.5]), 1.0)]
    found = contribution(opposite, 1.0) / LEVELS
    assert found[:2].tolist() == pytest.approx([0.0, 0.5], abs=1e-6)


def test_the_loss_comes_back_out_of_the_sum() -> None:
    told = [Told(0, torch.ones(3) * 1e6, 2.0), Told(0, torch.ones(3), 4.0)]
    told += [Told(1, torch.ones(3), 1e9)]
    total = summed(told, size=3, longest=0.5) * (0.5 / LEVELS)
    found = mean_loss(float(total[-1]), longest=0.5, expected=2.0)
    assert found == pytest.approx((3.0 + MOST_LOSS) / 2, rel=1e-5)
    kept = math.sqrt(1 - LOSS_SHARE**2)
    assert float(total[:3].norm()) == pytest.approx(2 * kept * 0.5, rel=1e-5)


def test_noise_has_the_deviation_that_is_stated() -> None:
    size, longest, noise = 200_000, 0.3, 1.7
    total = torch.full((size,), 1234.0, dtype=torch.float64)
    entropy = random.Random(1).randbytes
    found = noised(total, longest=longest, noise=noise, entropy=entropy)
    centre = 1234.0 * longest / LEVELS
    deviation = noise * longest
    assert abs(float(found.mean()) - centre) < 4 * deviation / math.sqrt(size)
    assert abs(float(found.std()) / deviation - 1) < 4 / math.sqrt(2 * size)


def test_noised_sums_have_the_same_low_bits_whatever_the_sum() -> None:
    """All of them stand on one grid, and no sum leaves a place of the grid out."""

    def grid(total: float) -> Tensor:
        entropy = random.Random(2).randbytes
        whole = torch.full((5000,), total, dtype=torch.float64)
        return noised(whole, longest=0.5, noise=1.0, entropy=entropy) / (0.5 / LEVELS)

    one, other = grid(0.0), grid(777.0)
    assert torch.equal(one, one.round())
    assert torch.equal(other - 777.0, one)  # the rounded value of the exact mechanism
