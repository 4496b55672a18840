"""Whole rounds, whoever leaves and whenever: the sum is right, or nothing is learned."""

from itertools import product
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consilience.errors import RemoteError
from consilience.federation.parcels import Parcel
from consilience.federation.secure import gathering
from consilience.federation.secure.messages import Masked
from consilience.federation.secure.terms import threshold_of
from consilience.federation.secure.words import Scale, encode, length
from tests.federation.secure.world import (
    SHAPES,
    WEIGHTS,
    World,
    eavesdrop,
    plain_mean,
    updates,
    world,
)

WORLDS: dict[int, World] = {}
"""Kept over examples: each round is a new one."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    WORLDS.clear()
    return tmp_path_factory.mktemp("rounds")


def known_world(folder: Path, parties: int) -> World:
    if parties not in WORLDS:
        WORLDS[parties] = world(folder / str(parties), parties)
    return WORLDS[parties]


def play(found: World, leaving: tuple[str, ...]) -> None:
    """A round in which each party stays, or leaves at its moment.

    `before` it seals, `late` with what it sealed, which arrives when all is over, or `silent` when
    it is asked once more.
    """
    orders = found.orders()
    fate = dict(zip(found.names, leaving, strict=True))
    known = updates([name for name in found.names if fate[name] != "before"], seed=found.round)
    sealed = found.seal(orders, known)
    in_time = {name: parcel for name, parcel in sealed.items() if fate[name] != "late"}
    heard: list[Parcel] = [*sealed.values()]
    asking = found.ask(orders, silent=[name for name in found.names if fate[name] == "silent"])

    def ask(requests: dict[str, Parcel]) -> dict[str, Parcel]:
        answers = asking(requests)
        heard.extend([*requests.values(), *answers.values()])
        return answers

    threshold = threshold_of(len(found.names), found.config)
    staying = [name for name in in_time if fate[name] == "stays"]
    if len(in_time) < threshold or len(staying) < threshold:
        with pytest.raises(RemoteError, match=f"of {len(found.names)} parties"):
            found.gathering.gather(orders, in_time, WEIGHTS, ask)
        told = [parcel.about for parcel in heard if parcel.about["form"] == "told"]
        assert len(told) == len(staying) * (len(in_time) >= threshold)
        assert eavesdrop(found.terms(orders), told) == {}
    else:
        mean = found.gathering.gather(orders, in_time, WEIGHTS, ask)
        summed = {name: known[name] for name in in_time}
        assert_mean(found, mean, summed)
        assert mean.refused == {}
    assert_no_secret_is_told(found, orders, sealed, heard)


def assert_mean(found: World, mean: object, summed: dict) -> None:
    weight = sum(each.weight for each in summed.values())
    bound = Scale(len(found.names), 0.5).bound(answered=len(summed), weight=weight)
    for name, expected in plain_mean(summed).items():
        error = (mean.delta[name].double() - expected).abs()
        assert mean.delta[name].shape == SHAPES[name]
        assert bool((error <= bound + expected.abs() * 2**-23).all())
    assert mean.weight == weight
    loss = sum(each.weight * each.metrics["loss"] for each in summed.values()) / weight
    assert mean.metrics["loss"] == pytest.approx(loss, abs=64 * bound)


def assert_no_secret_is_told(
    found: World, orders: object, sealed: dict[str, Parcel], heard: list[Parcel]
) -> None:
    words = b"".join(parcel.pack() for parcel in heard)
    for name in sealed:
        dealing = found.dealing(name, orders)
        shares = [share for all_ in dealing.shares.values() for share in all_]
        for secret in (*dealing.secrets.values(), *shares, found.keys[name].secret):
            assert secret.hex().encode() not in words
            assert secret not in words


@pytest.mark.parametrize("parties", [2, 3, 4])
def test_every_way_of_leaving(folder: Path, parties: int) -> None:
    for leaving in product(("stays", "before", "silent"), repeat=parties):
        play(known_world(folder, parties), leaving)


FATES = st.sampled_from(["stays"] * 5 + ["before", "late", "silent"])


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(leaving=st.integers(2, 10).flatmap(lambda n: st.tuples(*[FATES] * n)))
def test_ways_of_leaving_of_many(folder: Path, leaving: tuple[str, ...]) -> None:
    play(known_world(folder, len(leaving)), leaving)


def test_one_that_comes_late_stays_hidden_though_all_its_masks_with_others_are_known(
    tmp_path: Path,
) -> None:
    found = world(tmp_path, 4)
    orders = found.orders()
    sealed = found.seal(orders, updates(found.names))
    late = sealed.pop("party-3")
    terms, told_seeds = found.terms(orders), {}
    real = gathering._seeds

    def noted(*args: object) -> dict:
        told_seeds.update(real(*args))
        return dict(told_seeds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gathering, "_seeds", noted)
        found.gather(orders, sealed)
    masked = Masked.parse(late, terms, party="party-3", length=length(terms))
    between = {other: told_seeds[other, "party-3"] for other in sealed}
    dealing = found.dealing("party-3", orders)
    assert between == {other: dealing.secrets[other] for other in sealed}
    assert dealing.secrets["party-3"] not in told_seeds.values()
    # What is left when these are taken away is the update under its own mask, and that is all.
    left = masked.words.copy()
    for other, seed in between.items():
        before = terms.number(other) < terms.number("party-3")
        gathering.add_stream(left, seed, sign=1 if before else -1)
    gathering.add_stream(left, dealing.secrets["party-3"], sign=-1)
    assert (left == encode(updates(found.names)["party-3"], terms)).all()


def test_the_same_mean_as_without_secrets(tmp_path: Path) -> None:
    found = world(tmp_path, 5)
    for round_ in range(3):
        orders, known = found.orders(), updates(found.names, seed=round_)
        mean = found.gather(orders, found.seal(orders, known))
        assert_mean(found, mean, known)


def test_one_that_is_asked_again_after_all_were_silent(tmp_path: Path) -> None:
    found = world(tmp_path, 3)
    orders, known = found.orders(), updates(found.names)
    sealed = found.seal(orders, known)
    with pytest.raises(RemoteError, match="1 of 3 parties told what the sum needs, 2 must"):
        found.gather(orders, sealed, silent=["party-1", "party-2"])
    assert_mean(found, found.gather(orders, sealed), known)
