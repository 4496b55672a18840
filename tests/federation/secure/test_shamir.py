"""Shares of secrets."""

import secrets

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilience.federation.secure import shamir
from consilience.federation.secure.shamir import PRIME, join, split


def random(threshold: int) -> list[bytes]:
    return [secrets.token_bytes(shamir.COEFFICIENT) for _ in range(threshold - 1)]


def number(value: int, size: int = 32) -> bytes:
    return value.to_bytes(size, "little")


def test_the_modulus_is_a_prime_above_all_secrets() -> None:
    odd, twos = PRIME - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):  # Miller and Rabin
        found = pow(base, odd, PRIME)
        powers = {pow(found, 2**step, PRIME) for step in range(twos)}
        assert found == 1 or PRIME - 1 in powers
    assert PRIME > 2**256 - 1


def test_the_worked_example_that_is_published_with_the_scheme() -> None:
    # f(x) = 1234 + 166 x + 94 x^2, over the integers as long as nothing exceeds the prime.
    coefficients = [number(166, shamir.COEFFICIENT), number(94, shamir.COEFFICIENT)]
    shares = split(number(1234), range(1, 7), coefficients)
    found = [int.from_bytes(share, "little") for share in shares.values()]
    assert found == [1494, 1942, 2578, 3402, 4414, 5614]
    chosen = {n: shares[n] for n in (2, 4, 5)}
    assert join(chosen, threshold=3, right=lambda _: True) == number(1234)


@settings(max_examples=60, deadline=None)
@given(secret=st.binary(min_size=32, max_size=32), data=st.data())
def test_any_threshold_of_shares_make_the_secret(secret: bytes, data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 10))
    threshold = data.draw(st.integers(2, count))
    shares = split(secret, range(1, count + 1), random(threshold))
    chosen = data.draw(
        st.lists(st.sampled_from(sorted(shares)), unique=True, min_size=threshold, max_size=count)
    )
    assert join({n: shares[n] for n in chosen}, threshold=threshold, right=secret.__eq__) == secret


@settings(max_examples=40, deadline=None)
@given(
    secret=st.integers(0, 2**256 - 1), other=st.integers(0, 2**256 - 1), threshold=st.integers(2, 8)
)
def test_one_share_fewer_fits_every_secret(secret: int, other: int, threshold: int) -> None:
    few = range(1, threshold)
    shares = split(number(secret), range(1, threshold + 1), random(threshold))
    points = {0: other, **{n: int.from_bytes(shares[n], "little") for n in few}}
    # The polynomial of the other secret through the same shares, and its value at the last number.
    last = 0
    for here, value in points.items():
        weight = value
        for there in points:
            if there != here:
                weight = weight * (threshold - there) * pow(here - there, -1, PRIME) % PRIME
        last = (last + weight) % PRIME
    known = {**{n: shares[n] for n in few}, threshold: number(last, shamir.SHARE)}
    assert join(known, threshold=threshold, right=lambda _: True) == number(other)


def test_too_few_shares_make_nothing() -> None:
    shares = split(number(7), range(1, 6), random(3))
    assert join({1: shares[1], 2: shares[2]}, threshold=3, right=lambda _: True) is None


@pytest.mark.parametrize("wrong", [(1,), (1, 2), (3, 5)])
def test_wrong_shares_do_no_harm_while_enough_are_right(wrong: tuple[int, ...]) -> None:
    secret = secrets.token_bytes(32)
    shares = split(secret, range(1, 6), random(3))
    broken = {**shares, **{n: secrets.token_bytes(shamir.SHARE) for n in wrong}}
    assert join(broken, threshold=3, right=secret.__eq__) == secret


def test_with_too_many_wrong_shares_there_is_no_secret() -> None:
    secret = secrets.token_bytes(32)
    shares = split(secret, range(1, 5), random(3))
    broken = {**shares, 1: bytes(shamir.SHARE), 2: b"\xff" * shamir.SHARE}
    assert join(broken, threshold=3, right=secret.__eq__) is None
