"""The coordinator's side: who is refused, and why."""

import re
import secrets
from pathlib import Path

import pytest
import torch

from consilience.errors import RemoteError, UsageError
from consilience.federation.contracts import Ask, Orders
from consilience.federation.parcels import Parcel
from consilience.federation.secure import Roster, new_party_key, shamir
from consilience.federation.secure.bonds import bonds_of, box_shares
from tests.federation.secure.world import (
    WEIGHTS,
    World,
    again,
    plain_mean,
    update,
    updates,
    world,
)


@pytest.fixture
def four(tmp_path: Path) -> World:
    return world(tmp_path, 4)


def assert_sum(found: object, known: dict, names: tuple[str, ...]) -> None:
    summed = {name: known[name] for name in names}
    for name, expected in plain_mean(summed).items():
        assert torch.allclose(found.delta[name].double(), expected, atol=1e-5)
    assert found.weight == sum(each.weight for each in summed.values())


def changed(parcel: Parcel, **about: object) -> Parcel:
    return Parcel({**parcel.about, **about}, parcel.tensors)


def of_words(parcel: Parcel, words: torch.Tensor) -> Parcel:
    return Parcel(parcel.about, {"words": words})


BROKEN = {
    "shorter": (
        lambda p: of_words(p, p.tensors["words"][:-1].clone()),
        r"it holds \(27,\) words of torch.int32, where 28 of torch.int32 must be",
    ),
    "floats": (lambda p: of_words(p, p.tensors["words"].float()), "words of torch.float32"),
    "matrix": (lambda p: of_words(p, p.tensors["words"].reshape(4, 7)), r"it holds \(4, 7\) words"),
    "none": (lambda p: Parcel(p.about), "it holds no words"),
    "plain": (lambda p: changed(p, form="plain"), "it is in the form 'plain', not 'masked'"),
    "of another": (lambda p: changed(p, party="party-1"), "it says that it is of 'party-1'"),
    "of another run": (
        lambda p: changed(p, run="x"),
        "it is of run 'x', round 1, attempt 1, a rep",
    ),
    "of another round": (lambda p: changed(p, round=7), "round 7, attempt 1, a replay in round 1"),
    "of other terms": (lambda p: changed(p, terms="0"), "sealed under other orders or settings"),
    "without tags": (lambda p: changed(p, tags=None), "something is missing from it"),
    "without shares": (
        lambda p: changed(p, shares={"party-0": p.about["shares"]["party-0"]}),
        "something is missing from it, or is too much",
    ),
    "short share": (
        lambda p: changed(p, shares={n: s[:-2] for n, s in p.about["shares"].items()}),
        "something in it has another length than it must",
    ),
    "no share": (
        lambda p: changed(p, shares=dict.fromkeys(p.about["shares"], 5)),
        "something in it has another length",
    ),
    "not hexadecimal": (
        lambda p: changed(p, tags=dict.fromkeys(p.about["tags"], "zz" * 32)),
        "something in it has another length",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_a_party_sends_is_not_believed(four: World, kind: str) -> None:
    orders, known = four.orders(), updates(four.names)
    sealed = four.seal(orders, known)
    break_it, reason = BROKEN[kind]
    sealed["party-3"] = break_it(sealed["party-3"])
    found = four.gather(orders, sealed)
    assert_sum(found, known, four.names[:3])
    assert list(found.refused) == ["party-3"]
    assert re.search(reason, found.refused["party-3"])


def test_a_parcel_of_the_round_before_is_a_replay(four: World) -> None:
    old = four.seal(four.orders(), updates(four.names))["party-3"]
    orders, known = four.orders(), updates(four.names, seed=1)
    sealed = {**four.seal(orders, known), "party-3": old}
    found = four.gather(orders, sealed)
    assert_sum(found, known, four.names[:3])
    assert "a replay in round 2, attempt 1" in found.refused["party-3"]


def test_whoever_was_not_asked_does_not_count(four: World) -> None:
    orders, known = four.orders(), updates(four.names)
    sealed = four.seal(orders, known)
    found = four.gather(orders, {**sealed, "stranger": sealed["party-0"]})
    assert_sum(found, known, four.names)


def test_a_party_whose_roster_has_another_key_is_named(four: World) -> None:
    orders, known = four.orders(), updates(four.names)
    keys = {name: new_party_key().public for name in four.names}
    four.restart("party-1", roster=Roster({**keys, "party-1": four.keys["party-1"].public}))
    found = four.gather(orders, four.seal(orders, known))
    assert found.refused == {"party-1": "its keys do not fit those of party-0, party-2, party-3"}
    assert_sum(found, known, ("party-0", "party-2", "party-3"))


def test_two_that_disagree_about_one_key(four: World) -> None:
    orders, known = four.orders(), updates(four.names)
    wrong = {**four.roster.keys, "party-2": new_party_key().public}
    four.restart("party-1", roster=Roster(wrong))
    found = four.gather(orders, four.seal(orders, known))
    assert found.refused == {"party-2": "its keys do not fit those of party-1"}
    assert_sum(found, known, ("party-0", "party-1", "party-3"))


def test_too_few_that_sealed(four: World) -> None:
    orders = four.orders()
    sealed = four.seal(orders, updates(four.names[:3]))
    sealed["party-2"] = changed(sealed["party-2"], round=9)
    with pytest.raises(RemoteError) as raised:
        four.gather(orders, sealed)
    assert raised.value.message == (
        "2 of 4 parties sealed, 3 must (silent: party-3; party-2: it is of run 'run', round 9, "
        "attempt 1, a replay in round 1, attempt 1)"
    )
    assert raised.value.hint == (
        "nothing was learned; repeat the round with the next attempt when they are back"
    )


def test_nobody_is_asked_when_too_few_sealed(four: World) -> None:
    orders = four.orders()
    sealed = four.seal(orders, updates(four.names[:2]))
    with pytest.raises(RemoteError, match="2 of 4 parties sealed, 3 must"):
        four.gathering.gather(orders, sealed, WEIGHTS, pytest.fail)


def test_settings_that_these_parties_cannot_meet(tmp_path: Path) -> None:
    found = world(tmp_path, 3, threshold=4)
    with pytest.raises(UsageError, match=r"secure.threshold is 4, but only 3 parties are asked"):
        found.gathering.gather(found.orders(), {}, WEIGHTS, pytest.fail)


# A round that is repeated.


def test_another_attempt_with_the_same_parties(four: World) -> None:
    orders, known = four.orders(), updates(four.names)
    with pytest.raises(RemoteError, match="1 of 4 parties told what the sum needs, 3 must"):
        four.gather(orders, four.seal(orders, known), silent=four.names[1:])
    later = again(orders, attempt=2)
    assert_sum(four.gather(later, four.seal(later, known)), known, four.names)


def test_another_attempt_with_other_parties_if_few_have_told(four: World) -> None:
    orders, known = four.orders(), updates(four.names)
    with pytest.raises(RemoteError, match="told what the sum needs"):
        four.gather(orders, four.seal(orders, known), silent=four.names[1:])
    later = again(orders, attempt=2)
    sealed = four.seal(later, {name: known[name] for name in four.names[1:]})
    assert_sum(four.gather(later, sealed), known, four.names[1:])


def test_no_second_sum_once_more_have_told(four: World) -> None:
    """Two sums that differ by one party would give it away, were the first to be told late."""
    orders, known = four.orders(), updates(four.names)
    with pytest.raises(RemoteError, match="2 of 4 parties told"):
        four.gather(orders, four.seal(orders, known), silent=four.names[2:])
    later = again(orders, attempt=2)
    sealed = four.seal(later, {name: known[name] for name in four.names[:3]})
    with pytest.raises(RemoteError, match="1 of 4 parties told what the sum needs, 3 must"):
        four.gather(later, sealed)
    after = four.orders()
    new = updates(four.names, seed=2)
    assert_sum(four.gather(after, four.seal(after, new)), new, four.names)


# Parties that deal or tell what is wrong.


def with_wrong_shares(found: World, orders: Orders, sealed: Parcel, dealer: str) -> Parcel:
    """Shares that can be opened and are none of what was dealt."""
    terms = found.terms(orders)
    bonds = bonds_of(dealer, found.keys[dealer], found.roster, terms)
    wrong = [secrets.token_bytes(shamir.SHARE)] * len(terms.parties)
    boxed = {
        other: box_shares(wrong, bond, terms, dealer, other, fresh=secrets.token_bytes(32))
        for other, bond in bonds.items()
    }
    return changed(sealed, shares=boxed)


def test_wrong_shares_end_the_attempt_and_name_who_dealt_them(four: World) -> None:
    orders = four.orders()
    sealed = four.seal(orders, updates(four.names))
    sealed["party-1"] = with_wrong_shares(four, orders, sealed["party-1"], "party-1")
    with pytest.raises(RemoteError, match="the masks of 'party-1' cannot be taken away") as raised:
        four.gather(orders, sealed)
    assert raised.value.hint == "begin the next round, without 'party-1'"


def test_shares_that_nobody_can_open_are_left_out_and_the_rest_is_asked_anew(four: World) -> None:
    orders, known = four.orders(), updates(four.names)
    sealed = four.seal(orders, known)
    broken = {
        name: "00" * (len(text) // 2) for name, text in sealed["party-1"].about["shares"].items()
    }
    sealed["party-1"] = changed(sealed["party-1"], shares=broken)
    found = four.gather(orders, sealed)
    assert found.refused == {"party-1": "its shares cannot be opened by party-0, party-2, party-3"}
    assert_sum(found, known, ("party-0", "party-2", "party-3"))


def test_one_that_cannot_open_shares_is_not_needed(four: World) -> None:
    orders, known = four.orders(), updates(four.names)
    sealed = four.seal(orders, known)
    shares = {**sealed["party-1"].about["shares"]}
    shares["party-0"] = "00" * (len(shares["party-0"]) // 2)
    sealed["party-1"] = changed(sealed["party-1"], shares=shares)
    found = four.gather(orders, sealed)
    assert found.refused == {}
    assert_sum(found, known, four.names)


def lying(found: World, orders: Orders, liar: str, **about: object) -> Ask:
    """As parties answer, but one of them."""
    honest = found.ask(orders)

    def asking(requests: dict[str, Parcel]) -> dict[str, Parcel]:
        answers = dict(honest(requests))
        answers[liar] = changed(answers[liar], **about)
        return answers

    return asking


LIES = {
    "another sum": {"choice": "x"},
    "no body": {"body": "00"},
    "no table": {"body": None},
    "no share": {"own": "00"},
    "wrong share": {"own": "11" * shamir.SHARE},
    "no openings": {"openings": {}},
    "a fault": {"form": "fault"},
    "of another": {"party": "party-1"},
    "complaints": {"form": "unreadable", "parties": ["party-1", "party-0", 5]},
}


@pytest.mark.parametrize("lie", LIES)
def test_one_that_lies_is_not_needed(four: World, lie: str) -> None:
    orders, known = four.orders(), updates(four.names)
    sealed = four.seal(orders, known)
    ask = lying(four, orders, "party-0", **LIES[lie])
    assert_sum(four.gathering.gather(orders, sealed, WEIGHTS, ask), known, four.names)


def test_whoever_was_not_asked_tells_nothing(four: World) -> None:
    orders = four.orders()
    sealed = four.seal(orders, updates(four.names[:3]))
    stranger = {
        "party-3": Parcel({"form": "unreadable", "party": "party-3", "parties": ["party-0"]})
    }
    with pytest.raises(RemoteError, match="0 of 4 parties told what the sum needs, 3 must"):
        four.gathering.gather(orders, sealed, WEIGHTS, lambda _: stranger)


def test_wrong_openings_are_passed_over(four: World) -> None:
    orders, known = four.orders(), updates(four.names)
    wrong = dict.fromkeys(four.names[1:], "22" * 32)
    ask = lying(four, orders, "party-0", openings=wrong)
    sealed = four.seal(orders, known)
    assert_sum(four.gathering.gather(orders, sealed, WEIGHTS, ask), known, four.names)


def test_words_that_were_changed_on_the_way_spoil_the_sum_and_are_noticed(four: World) -> None:
    orders = four.orders()
    sealed = four.seal(orders, updates(four.names))
    words = sealed["party-1"].tensors["words"].clone()
    words[3] += 2**30
    sealed["party-1"] = of_words(sealed["party-1"], words)
    with pytest.raises(RemoteError, match="the sum is none that these parties could have"):
        four.gather(orders, sealed)


def test_the_clipping_bound_is_part_of_the_sum(four: World) -> None:
    orders = four.orders()
    known = {name: update(1, size=100.0) for name in four.names}
    found = four.gather(orders, four.seal(orders, known))
    for name, value in found.delta.items():
        assert torch.allclose(value.abs(), torch.full_like(value, 0.5), atol=1e-5)
        assert torch.equal(value.sign(), known["party-0"].delta[name].sign())
