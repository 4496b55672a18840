"""What a party seals, and what it tells to whom."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from consilience.errors import (
    ConsilienceError,
    DamagedError,
    FingerprintError,
    MissingError,
    UsageError,
)
from consilience.federation.contracts import Orders, Update
from consilience.federation.parcels import Parcel
from consilience.federation.secure import (
    Roster,
    SecureSealing,
    gathering,
    new_party_key,
    shamir,
)
from consilience.federation.secure.bonds import bonds_of, unbox_shares
from consilience.federation.secure.ciphers import tag
from consilience.federation.secure.memory import Memory
from consilience.federation.secure.messages import Request, Told
from tests.federation.secure.world import (
    SHAPES,
    World,
    again,
    eavesdrop,
    update,
    updates,
    world,
)


@pytest.fixture
def three(tmp_path: Path) -> World:
    return world(tmp_path, 3)


def words(parcel: Parcel) -> np.ndarray:
    return parcel.tensors["words"].numpy().view(np.uint32)


def request(
    found: World, orders: Orders, sealed: dict[str, Parcel], *, to: str, **changes: object
) -> Request:
    """An honest request to a party, or one that is changed."""
    honest = Request(
        found.terms(orders).digest,
        tuple(name for name in found.names if name in sealed),
        tuple(name for name in found.names if name not in sealed),
        {name: sealed[name].about["shares"][to] for name in sealed if name != to},
    )
    return replace(honest, **changes)


def told_for(found: World, name: str, orders: Orders) -> tuple[str, ...]:
    return Memory(found.folder / name).recall(orders).told


# What leaves a party.


def looks_random(seen: np.ndarray) -> bool:
    counts = np.bincount(seen.view(np.uint8), minlength=256)
    expected = 4 * len(seen) / 256
    chi_squared = float(((counts - expected) ** 2 / expected).sum())
    return chi_squared < 400  # of 255 degrees of freedom: more once in a hundred million times


def test_what_leaves_looks_like_noise_and_so_do_sums_of_some(three: World) -> None:
    orders = again(three.orders(), moving=("w",))
    same = Update({"w": torch.zeros(1 << 17)}, 1.0, {"loss": 1.0})
    a, b, c = (words(three.parties[name].seal(same, orders)) for name in three.names)
    for seen in (a, b, c, a - b, a + b, a + b + c):
        assert looks_random(seen)
    assert np.mean(a == b) < 1e-3
    assert not looks_random(np.zeros(1 << 17, np.uint32) + np.uint32(7))


def test_the_same_update_gives_the_same_parcel_after_a_restart_too(three: World) -> None:
    orders, name = three.orders(), "party-0"
    first = three.parties[name].seal(update(1), orders).pack()
    assert three.parties[name].seal(update(1), orders).pack() == first
    three.restart(name)
    assert three.parties[name].seal(update(1), orders).pack() == first


def test_another_attempt_has_fresh_masks_and_fresh_shares(three: World) -> None:
    orders, name = three.orders(), "party-0"
    first = three.parties[name].seal(update(1), orders)
    second = three.parties[name].seal(update(1), again(orders, attempt=2))
    assert np.mean(words(first) == words(second)) < 0.1
    for other in ("party-1", "party-2"):
        assert first.about["shares"][other][24:] != second.about["shares"][other][24:]
    assert not set(first.about["tags"].values()) & set(second.about["tags"].values())


def test_another_round_has_fresh_masks_for_the_same_update(three: World) -> None:
    first = three.parties["party-0"].seal(update(1), three.orders())
    second = three.parties["party-0"].seal(update(1), three.orders())
    assert not set(first.about["tags"].values()) & set(second.about["tags"].values())
    assert np.mean(words(first) == words(second)) < 0.1


def test_four_bytes_a_weight_and_little_else(three: World) -> None:
    orders = again(three.orders(), moving=("w",))
    sealed = three.parties["party-0"].seal(
        Update({"w": torch.zeros(10_000)}, 1.0, {"loss": 1.0}), orders
    )
    assert len(sealed.pack()) < 40_000 + 2_000


def test_nothing_is_told_in_the_clear(three: World) -> None:
    canary = {"loss": 1.25, "eval_f1": 0.375, "patients of doctor Zhang": 7.0}
    delta = {name: torch.full(shape, 0.123) for name, shape in SHAPES.items()}
    known = Update(delta, 4242.0, canary, epsilon=3.1415, seconds=98.765)
    sealed = three.parties["party-0"].seal(known, three.orders())
    assert set(sealed.about) == {
        *("form", "run", "round", "attempt", "party", "terms", "tags", "shares")
    }
    for text in ("1.25", "0.375", "patients", "4242", "3.1415", "98.765"):
        assert text.encode() not in sealed.pack()


def test_shares_are_for_their_receiver_only(three: World) -> None:
    orders = three.orders()
    sealed = three.seal(orders, updates(three.names))
    boxed, terms = sealed["party-0"].about["shares"]["party-1"], three.terms(orders)
    bonds = {name: bonds_of(name, three.keys[name], three.roster, terms) for name in three.names}
    found = unbox_shares(boxed, bonds["party-1"]["party-0"], terms, "party-0", "party-1")
    assert found == three.dealing("party-0", orders).shares["party-1"]
    later = three.terms(again(orders, attempt=2))
    for bond, at, ends in (
        (bonds["party-2"]["party-0"], terms, ("party-0", "party-1")),
        (bonds["party-1"]["party-0"], terms, ("party-1", "party-0")),
        (bonds["party-1"]["party-0"], later, ("party-0", "party-1")),
    ):
        with pytest.raises(DamagedError, match="cannot be opened"):
            unbox_shares(boxed, bond, at, *ends)


@pytest.mark.parametrize("parties", [3, 4, 7, 10])
def test_a_coordinator_and_one_party_too_few_learn_nothing_of_the_others(
    tmp_path: Path, parties: int
) -> None:
    """They hold every key of theirs, and shares of each secret, all but one of those needed."""
    found = world(tmp_path, parties)
    orders = found.orders()
    sealed = found.seal(orders, updates(found.names))
    terms, victim = found.terms(orders), "party-0"
    colluding = found.names[1 : terms.threshold]
    shares = {}
    for name in colluding:
        bond = bonds_of(name, found.keys[name], found.roster, terms)[victim]
        boxed = sealed[victim].about["shares"][name]
        shares[terms.number(name)] = unbox_shares(boxed, bond, terms, victim, name)
    own = {number: each[0] for number, each in shares.items()}
    wanted = sealed[victim].about["tags"][victim]
    assert len(own) == terms.threshold - 1
    assert not looks_open(own, terms.threshold, wanted)
    one_more = found.dealing(victim, orders).shares[found.names[-1]][0]
    assert looks_open({**own, parties: one_more}, terms.threshold, wanted)


def looks_open(shares: dict[int, bytes], threshold: int, wanted: str) -> bool:
    """Whether they make the secret, or would with any few of them."""
    tries = range(1, threshold + 1)
    return any(
        shamir.join(shares, threshold=few, right=lambda secret: tag(secret) == wanted)
        for few in tries
    )


# What a party refuses to seal.


def test_another_update_is_not_sealed_in_any_attempt_of_a_round(three: World) -> None:
    orders, party = three.orders(), three.parties["party-0"]
    party.seal(update(1), orders)
    for attempt in (1, 2):
        with pytest.raises(UsageError, match="round 1 has been sealed by this party with another"):
            party.seal(update(2), again(orders, attempt=attempt))
    for other in (
        replace(update(1), weight=11.5),
        replace(update(1), metrics={"loss": 9.0}),
        replace(update(1), delta={n: v + 1e-6 for n, v in update(1).delta.items()}),
    ):
        with pytest.raises(UsageError, match="with another update"):
            party.seal(other, orders)


def test_rounds_and_attempts_never_go_back(three: World) -> None:
    party, first, second = three.parties["party-0"], three.orders(), three.orders()
    party.seal(update(1), second)
    party.seal(update(1), again(second, attempt=3))
    for orders in (first, again(second, attempt=2), second):
        with pytest.raises(UsageError, match="is over: this party is at round 2, attempt 3"):
            party.seal(update(1), orders)


@pytest.mark.parametrize(
    "changes",
    [{"seed": 5}, {"moving": ("b.bias", "a.weight")}, {"parties": ("party-0", "party-1")}],
)
def test_one_attempt_has_one_kind_of_orders(three: World, changes: dict) -> None:
    orders, party = three.orders(), three.parties["party-0"]
    party.seal(update(1), orders)
    known = update(1)
    with pytest.raises(UsageError, match="has been sealed by this party with"):
        party.seal(known, again(orders, **changes))


def test_an_attempt_may_have_fewer_parties_with_the_same_update(three: World) -> None:
    orders, known = three.orders(), updates(three.names[:2])
    three.parties["party-0"].seal(known["party-0"], orders)
    fewer = again(orders, attempt=2, parties=three.names[:2])
    assert three.gather(fewer, three.seal(fewer, known)).weight == 21.0


def test_runs_do_not_disturb_each_other(three: World) -> None:
    orders, party = three.orders(), three.parties["party-0"]
    first = party.seal(update(1), orders).pack()
    party.seal(update(2), again(orders, run="another", round=9))
    assert party.seal(update(1), orders).pack() == first


def test_a_party_that_is_not_asked(three: World) -> None:
    orders = again(three.orders(), parties=("party-1", "party-2"))
    with pytest.raises(UsageError, match="'party-0' is not among the parties of round 1: party-1"):
        three.parties["party-0"].seal(update(1), orders)


def test_a_party_that_nobody_pinned(three: World) -> None:
    orders = again(three.orders(), parties=(*three.names, "stranger"))
    with pytest.raises(MissingError, match="the roster does not name 'stranger'"):
        three.parties["party-0"].seal(update(1), orders)


def test_a_roster_with_another_key_for_oneself(three: World, tmp_path: Path) -> None:
    wrong = Roster({**three.roster.keys, "party-0": new_party_key().public})
    with pytest.raises(
        FingerprintError, match=r"the roster has the key .* for 'party-0', whose own"
    ):
        SecureSealing("party-0", three.keys["party-0"], wrong, tmp_path, three.config)


# What a party refuses to tell.


def test_an_honest_request_is_answered_always_the_same(three: World) -> None:
    orders = three.orders()
    sealed = three.seal(orders, updates(three.names))
    honest = request(three, orders, sealed, to="party-0").parcel()
    first = three.parties["party-0"].further(honest, orders).pack()
    assert told_for(three, "party-0", orders) == three.names
    three.restart("party-0")
    assert three.parties["party-0"].further(honest, orders).pack() == first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"alive": ("party-0", "party-1"), "dropped": ("party-1", "party-2")},
            "it says that party-1 answered and dropped out",
        ),
        (
            {"alive": ("party-0",), "dropped": ("party-1", "party-2")},
            "a sum of 1 parties, at least 2",
        ),
        (
            {"alive": ("party-1", "party-2"), "dropped": ("party-0",)},
            "it counts 'party-0' itself among those that dropped out",
        ),
        (
            {"alive": ("party-0", "party-1", "party-2", "party-9")},
            "it names party-9, who take no part in this round",
        ),
        ({"dropped": ("party-9",)}, "it names party-9, who take no part"),
        ({"alive": ("party-0", "party-1")}, "it does not say what became of party-2"),
        ({"alive": ("party-0", "party-1", "party-2", "party-1")}, "it names a party twice"),
        ({"terms": "00" * 32}, "it is of another round, attempt or orders"),
    ],
)
def test_requests_that_contradict_themselves(three: World, changes: dict, message: str) -> None:
    orders = three.orders()
    sealed = three.seal(orders, updates(three.names))
    asked = request(three, orders, sealed, to="party-0", **changes)
    with pytest.raises(
        DamagedError, match="a request for a sum that no party may answer"
    ) as raised:
        three.parties["party-0"].further(asked.parcel(), orders)
    assert message in raised.value.message
    assert told_for(three, "party-0", orders) == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"shares": {}},
        {"shares": {"party-1": "00"}},
        {"alive": "party-0"},
        {"alive": ["party-0", 1, "party-2"]},
        {"dropped": None},
        {"form": "told"},
        {"shares": None},
    ],
)
def test_requests_that_are_not_whole(three: World, changes: dict) -> None:
    orders = three.orders()
    sealed = three.seal(orders, updates(three.names))
    honest = request(three, orders, sealed, to="party-0").parcel()
    with pytest.raises(DamagedError):
        three.parties["party-0"].further(Parcel({**honest.about, **changes}), orders)
    assert told_for(three, "party-0", orders) == ()


def test_a_request_of_another_round_is_a_replay(three: World) -> None:
    first = three.orders()
    old = request(three, first, three.seal(first, updates(three.names)), to="party-0").parcel()
    second = three.orders()
    three.seal(second, updates(three.names))
    with pytest.raises(DamagedError, match="it is of another round, attempt or orders"):
        three.parties["party-0"].further(old, second)
    with pytest.raises(UsageError, match="sealed nothing under these orders of round 1, attempt 1"):
        three.parties["party-0"].further(old, first)


def test_nothing_is_told_of_what_was_not_sealed(three: World) -> None:
    orders = three.orders()
    sealed = three.seal(orders, updates(three.names[1:]))
    asked = request(three, orders, sealed, to="party-0").parcel()
    with pytest.raises(UsageError, match="this party has sealed nothing under these orders"):
        three.parties["party-0"].further(asked, orders)


def both_sums(found: World, orders: Orders) -> tuple[Parcel, Parcel]:
    """Requests to the first party of four, for all and for all but the last."""
    sealed = found.seal(orders, updates(found.names))
    all_ = request(found, orders, sealed, to="party-0").parcel()
    del sealed["party-3"]
    return all_, request(found, orders, sealed, to="party-0").parcel()


def test_a_party_tells_for_one_sum_whoever_restarts(tmp_path: Path) -> None:
    found = world(tmp_path, 4)
    orders = found.orders()
    first, second = both_sums(found, orders)
    found.parties["party-0"].further(first, orders)
    for _ in range(2):
        with pytest.raises(
            UsageError, match="told for the sum of party-0, party-1, party-2, party-3"
        ):
            found.parties["party-0"].further(second, orders)
        found.restart("party-0")


def test_a_party_tells_for_one_sum_in_all_attempts(tmp_path: Path) -> None:
    found = world(tmp_path, 4)
    orders = found.orders()
    first, _ = both_sums(found, orders)
    found.parties["party-0"].further(first, orders)
    later = again(orders, attempt=2)
    same, other = both_sums(found, later)
    with pytest.raises(UsageError, match="and tells for no other"):
        found.parties["party-0"].further(other, later)
    assert found.parties["party-0"].further(same, later).about["form"] == "told"


def test_the_choice_is_on_disk_before_anything_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = world(tmp_path, 4)
    orders = found.orders()
    first, second = both_sums(found, orders)
    with monkeypatch.context() as patch:
        patch.setattr(SecureSealing, "_told", interrupt)
        with pytest.raises(KeyboardInterrupt):
            found.parties["party-0"].further(first, orders)
    found.restart("party-0")
    with pytest.raises(UsageError, match="tells for no other"):
        found.parties["party-0"].further(second, orders)


def test_the_masks_are_on_disk_before_anything_is_sealed(
    three: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = three.orders()
    with monkeypatch.context() as patch:
        patch.setattr("consilience.federation.secure.sealing._mask", interrupt)
        with pytest.raises(KeyboardInterrupt):
            three.parties["party-0"].seal(update(1), orders)
    three.restart("party-0")
    with pytest.raises(UsageError, match="with another update"):
        three.parties["party-0"].seal(update(2), orders)


def interrupt(*args: object) -> None:
    raise KeyboardInterrupt


def test_swapped_shares_are_named_and_nothing_is_told(three: World) -> None:
    orders = three.orders()
    sealed = three.seal(orders, updates(three.names))
    honest = request(three, orders, sealed, to="party-0")
    one, other = honest.shares["party-1"], honest.shares["party-2"]
    swapped = replace(honest, shares={"party-1": other, "party-2": one})
    answer = three.parties["party-0"].further(swapped.parcel(), orders)
    assert dict(answer.about) == {
        "form": "unreadable",
        "party": "party-0",
        "parties": ["party-1", "party-2"],
    }
    assert told_for(three, "party-0", orders) == ()
    assert three.parties["party-0"].further(honest.parcel(), orders).about["form"] == "told"


def test_of_each_party_own_mask_or_masks_with_others_is_told_and_never_both(
    tmp_path: Path,
) -> None:
    found = world(tmp_path, 4)
    orders = found.orders()
    sealed = found.seal(orders, updates(found.names))
    del sealed["party-3"]
    told = {}
    for name in sealed:
        asked = request(found, orders, sealed, to=name)
        answer = found.parties[name].further(asked.parcel(), orders)
        told[name] = Told.parse(answer, asked, party=name)
    bodies = gathering._bodies(found.terms(orders), told)
    dealings = {name: found.dealing(name, orders) for name in found.names}
    for teller, body in bodies.items():
        shares = {dealer: dealings[dealer].shares[teller] for dealer in found.names}
        assert body == {
            dealer: [shares[dealer][number].hex(), shares[dealer][3].hex()]
            for number, dealer in enumerate(sealed)
        }


# A coordinator that tells different parties different things.


def tell(found: World, orders: Orders, sealed: dict[str, Parcel], views: dict) -> list:
    """What parties tell that are each asked for a sum of their own."""
    told = []
    for name, alive in views.items():
        chosen = {other: sealed[other] for other in found.names if other in alive}
        asked = request(found, orders, chosen, to=name)
        told.append(found.parties[name].further(asked.parcel(), orders).about)
    return told


A, B, C, D, E = (f"party-{number}" for number in range(5))


@pytest.mark.parametrize(
    "views",
    [
        # Masks of A with the others from those that believe A gone, its own from the rest.
        {A: (A, B, C), B: (B, C, D, E), C: (B, C, D, E), D: (A, B, C, D, E), E: (A, B, C, D, E)},
        {A: (A, B, C, D), B: (A, B, C, E), C: (A, C, D, E), D: (A, B, D, E), E: (B, C, D, E)},
        {A: (A, B, C), B: (A, B, C), D: (A, D, E), E: (A, D, E)},
    ],
)
def test_mixed_sums_do_not_open(tmp_path: Path, views: dict) -> None:
    found = world(tmp_path, 5, threshold=3)
    orders = found.orders()
    sealed = found.seal(orders, updates(found.names))
    told = tell(found, orders, sealed, views)
    assert eavesdrop(found.terms(orders), told) == {}


def test_enough_that_are_asked_for_one_sum_do_open(tmp_path: Path) -> None:
    found = world(tmp_path, 5, threshold=3)
    orders = found.orders()
    sealed = found.seal(orders, updates(found.names))
    views = {A: (A, B, C), B: (A, B, C), C: (A, B, C), D: (A, B, C, D, E), E: (A, B, C, D, E)}
    told = tell(found, orders, sealed, views)
    assert set(eavesdrop(found.terms(orders), told)) == {A, B, C}


def test_other_orders_for_some_spoil_the_sum_and_open_nothing(three: World) -> None:
    orders = three.orders()
    known = updates(three.names)
    other = again(orders, seed=99)
    sealed = three.seal(orders, {name: known[name] for name in three.names[:2]})
    sealed["party-2"] = three.parties["party-2"].seal(known["party-2"], other)
    found = three.gather(orders, sealed)
    assert found.refused == {"party-2": "it was sealed under other orders or settings"}


# What is on the disk.


def test_only_the_owner_reads_what_is_remembered(three: World) -> None:
    three.parties["party-0"].seal(update(1), three.orders())
    folder = three.folder / "party-0"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}


def test_older_rounds_are_forgotten(three: World) -> None:
    first = three.orders()
    three.parties["party-0"].seal(update(1), first)
    fresh = Memory(three.folder / "party-0").recall(first).fresh.hex()
    three.parties["party-0"].seal(update(2), three.orders())
    files = [file.read_text() for file in (three.folder / "party-0").iterdir()]
    assert not any(fresh in text for text in files)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"terms": {}, "sealed": 1}'])
def test_a_memory_that_is_damaged(three: World, text: str) -> None:
    orders = three.orders()
    three.parties["party-0"].seal(update(1), orders)
    (file,) = (three.folder / "party-0").glob("*.json")
    file.write_text(text)
    with pytest.raises(DamagedError, match="is no memory of secure sums") as raised:
        three.parties["party-0"].seal(update(1), orders)
    assert "take part in this run no more" in raised.value.hint


def test_a_memory_that_another_process_holds(three: World, monkeypatch: pytest.MonkeyPatch) -> None:
    orders = three.orders()
    three.parties["party-0"].seal(update(1), orders)
    monkeypatch.setattr("consilience.federation.secure.memory._PATIENCE", 0.0)
    memory = Memory(three.folder / "party-0")
    with (
        memory._held("run"),
        pytest.raises(ConsilienceError, match="another process of this party"),
    ):
        three.parties["party-0"].seal(update(1), orders)
