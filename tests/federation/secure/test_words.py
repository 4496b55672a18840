"""Updates as whole numbers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from consilience.errors import RemoteError, UsageError
from consilience.federation.config import SecureSettings
from consilience.federation.contracts import Orders, Update
from consilience.federation.secure.terms import Terms
from consilience.federation.secure.words import (
    METRICS,
    MOST_WEIGHT,
    Scale,
    decode,
    encode,
    length,
)


def terms(parties: int, size: int = 3, longest: float = 0.5) -> Terms:
    names = tuple(f"p{number}" for number in range(parties))
    orders = Orders("run", 1, ("w",), names, 0)
    return Terms.of(orders, {"w": (size,)}, SecureSettings(sums=True, longest=longest))


def of(values: list[float], weight: float = 1.0, **metrics: float) -> Update:
    return Update({"w": torch.tensor(values)}, weight, metrics)


@pytest.mark.parametrize("parties", [2, 3, 7, 10, 100])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sum_of_all_stays_in_its_word(parties: int, sign: int) -> None:
    known = terms(parties)
    largest = of([sign * 0.5, sign * 9.0, 0.0], 1e9, **dict.fromkeys(METRICS, sign * 1e9))
    one = encode(largest, known).view(np.int32).astype(np.int64)
    assert np.abs(one).max() <= Scale(parties, 0.5).reach
    assert np.abs(parties * one).max() < 2**31
    total = np.zeros(length(known), np.uint32)
    for _ in range(parties):
        total += encode(largest, known)
    found = decode(total, known, answered=parties)
    assert found.delta["w"].tolist() == pytest.approx([sign * 0.5, sign * 0.5, 0.0], abs=1e-6)
    assert found.weight == parties * MOST_WEIGHT
    assert found.metrics == {n: pytest.approx(sign * limit) for n, limit in METRICS.items()}


def test_reach_uses_nearly_the_whole_word() -> None:
    assert all(0.99 * 2**31 < n * Scale(n, 0.5).reach < 2**31 for n in range(2, 11))


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_the_mean_is_within_its_bound(data: st.DataObject) -> None:
    parties, longest = (
        data.draw(st.integers(2, 10)),
        data.draw(st.sampled_from([0.0078125, 0.5, 3.0])),
    )
    known = terms(parties, size=4, longest=longest)
    answered = data.draw(st.integers(2, parties))
    value = st.floats(-2 * longest, 2 * longest, width=32)
    given_ = [
        of(
            data.draw(st.lists(value, min_size=4, max_size=4)),
            float(data.draw(st.integers(1, 70_000))),
        )
        for _ in range(answered)
    ]
    total = np.zeros(length(known), np.uint32)
    for each in given_:
        total += encode(each, known)
    found = decode(total, known, answered=answered)
    weights = [min(each.weight, MOST_WEIGHT) for each in given_]
    cut = [each.delta["w"].double().clamp(-longest, longest) for each in given_]
    mean = sum(w * d for w, d in zip(weights, cut, strict=True)) / sum(weights)
    bound = Scale(parties, longest).bound(answered=answered, weight=sum(weights))
    error = (found.delta["w"].double() - mean).abs()
    assert found.weight == sum(weights)
    assert bool((error <= bound + mean.abs() * 2**-23).all())


def test_the_bound_is_no_larger_than_it_must_be() -> None:
    known, scale = terms(2, size=1000), Scale(2, 0.5)
    given_ = [of((torch.rand(1000) - 0.5).tolist(), 1.0) for _ in range(2)]
    total = encode(given_[0], known) + encode(given_[1], known)
    mean = (given_[0].delta["w"].double() + given_[1].delta["w"].double()) / 2
    whole = total.view(np.int32)[:1000] / (2 * scale.unit(0.5))
    assert 0.5 * scale.bound(answered=2, weight=2.0) < float(np.abs(whole - mean.numpy()).max())


def test_metrics_that_only_some_have() -> None:
    known = terms(3)
    total = encode(of([0.0] * 3, 10.0, loss=2.0, eval_f1=0.5), known)
    total += encode(of([0.0] * 3, 30.0, loss=4.0), known)
    found = decode(total, known, answered=2)
    assert found.metrics == {
        "loss": pytest.approx(3.5, abs=1e-3),
        "eval_f1": pytest.approx(0.5, abs=1e-4),
    }


def test_metrics_that_are_no_numbers_do_not_count() -> None:
    known = terms(2)
    total = encode(of([0.0] * 3, 1.0, loss=math.nan), known)
    total += encode(of([0.0] * 3, 1.0, loss=2.0), known)
    assert decode(total, known, answered=2).metrics == {"loss": pytest.approx(2.0, abs=1e-2)}


def test_other_metrics_stay_where_they_are() -> None:
    known = terms(2)
    with_more = encode(of([0.1] * 3, 1.0, loss=1.0, eval_patients=17.0), known)
    assert np.array_equal(with_more, encode(of([0.1] * 3, 1.0, loss=1.0), known))


def test_weights_that_are_not_whole() -> None:
    known = terms(2)
    total = encode(of([0.1] * 3, 0.25), known) + encode(of([0.3] * 3, 0.75), known)
    found = decode(total, known, answered=2)
    assert found.weight == pytest.approx(1.0, abs=1e-4)
    assert found.delta["w"].tolist() == pytest.approx([0.25] * 3, abs=1e-4)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none(value: float) -> None:
    with pytest.raises(UsageError, match="the change of w holds a number that is not finite"):
        encode(of([0.0, value, 0.0]), terms(2))


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_weights_that_are_none(weight: float) -> None:
    with pytest.raises(UsageError, match="whose weight is not above zero"):
        encode(of([0.0] * 3, weight), terms(2))


def test_a_sum_that_no_parties_have_is_refused() -> None:
    known = terms(3)
    honest = encode(of([0.1] * 3, 5.0), known) + encode(of([0.1] * 3, 5.0), known)
    decode(honest, known, answered=2)
    far = honest.copy()
    far[1] = 2**31 - 1
    without = honest.copy()
    without[3] = 0
    for total in (far, without):
        with pytest.raises(RemoteError, match="the sum is none that these parties could have"):
            decode(total, known, answered=2)


def test_nothing_moves() -> None:
    names = ("a", "b")
    known = Terms.of(Orders("run", 1, (), names, 0), {}, SecureSettings(sums=True))
    total = encode(Update({}, 2.0, {"loss": 1.0}), known) * np.uint32(2)
    found = decode(total, known, answered=2)
    assert (found.delta, found.weight) == ({}, 4.0)
