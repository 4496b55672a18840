"""What all agree on."""

from dataclasses import replace

import pytest

from consilience.errors import UsageError
from consilience.federation.config import SecureSettings
from consilience.federation.contracts import Orders
from consilience.federation.secure.terms import Terms, threshold_of

ORDERS = Orders("run", 3, ("a", "b"), ("x", "y", "z"), 7)
SHAPES = {"a": (2, 3), "b": (4,)}
CONFIG = SecureSettings(sums=True)


@pytest.mark.parametrize(
    ("parties", "threshold"),
    [(2, 2), (3, 2), (4, 3), (5, 4), (6, 4), (7, 5), (8, 6), (9, 6), (10, 7), (100, 67)],
)
def test_two_thirds_must_stay(parties: int, threshold: int) -> None:
    assert threshold_of(parties, CONFIG) == threshold
    assert 2 * threshold > parties


@pytest.mark.parametrize(
    ("parties", "threshold", "message"),
    [
        (1, None, "secure sums of 1 party: a sum of one hides nothing"),
        (3, 4, "secure.threshold is 4, but only 3 parties are asked"),
        (4, 2, "secure.threshold is 2 of 4 parties: two halves could be made to tell two sums"),
    ],
)
def test_thresholds_that_cannot_be(parties: int, threshold: int | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        threshold_of(parties, SecureSettings(sums=True, threshold=threshold))


def test_a_threshold_that_is_set() -> None:
    assert threshold_of(5, SecureSettings(sums=True, threshold=5)) == 5
    assert threshold_of(5, SecureSettings(sums=True, threshold=3)) == 3


def test_everything_is_in_the_digest() -> None:
    known = Terms.of(ORDERS, SHAPES, CONFIG)
    others = [
        Terms.of(replace(ORDERS, run="other"), SHAPES, CONFIG),
        Terms.of(replace(ORDERS, round=4), SHAPES, CONFIG),
        Terms.of(replace(ORDERS, attempt=2), SHAPES, CONFIG),
        Terms.of(replace(ORDERS, seed=8), SHAPES, CONFIG),
        Terms.of(replace(ORDERS, parties=("x", "z", "y")), SHAPES, CONFIG),
        Terms.of(replace(ORDERS, parties=("x", "y", "z", "w")), SHAPES, CONFIG),
        Terms.of(replace(ORDERS, moving=("b", "a")), SHAPES, CONFIG),
        Terms.of(ORDERS, {**SHAPES, "a": (3, 2)}, CONFIG),
        Terms.of(ORDERS, SHAPES, SecureSettings(sums=True, threshold=3)),
        Terms.of(ORDERS, SHAPES, SecureSettings(sums=True, longest=0.25)),
    ]
    assert len({known.digest, *(each.digest for each in others)}) == len(others) + 1
    assert Terms.of(ORDERS, dict(reversed(SHAPES.items())), CONFIG).digest == known.digest


def test_terms_come_back() -> None:
    known = Terms.of(ORDERS, SHAPES, CONFIG)
    assert Terms.parse(known.to_dict()) == known


def test_a_weight_without_a_change() -> None:
    with pytest.raises(UsageError, match="round 3 moves b, of which there is no change"):
        Terms.of(ORDERS, {"a": (2, 3)}, CONFIG)


def test_a_party_that_is_named_twice() -> None:
    with pytest.raises(UsageError, match="round 3 names a party twice: x, y, x"):
        Terms.of(replace(ORDERS, parties=("x", "y", "x")), SHAPES, CONFIG)
