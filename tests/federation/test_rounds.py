import json
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from consilience.errors import ConsilienceError, RemoteError, UsageError
from consilience.federation.combining import PlainGathering
from consilience.federation.contracts import (
    Ask,
    Gathered,
    Gathering,
    Orders,
    Parties,
    Party,
    Update,
    Weights,
)
from consilience.federation.journal import Line, read_standing
from consilience.federation.local import LocalParties
from consilience.federation.messages import Message
from consilience.federation.parcels import Parcel
from consilience.federation.party import ResidentParty
from consilience.federation.payload import PlainSealing
from consilience.federation.rounds import (
    REPEATS,
    Coordinator,
    Federated,
    Watch,
    _party_epsilon,
)
from consilience.federation.secure.noise import party_epsilon
from consilience.federation.terms import Limits
from consilience.training.checkpoint import checkpoints, latest_checkpoint, read_checkpoint
from consilience.version import __version__
from tests.federation.fakes import RECIPE, SHAPES, Bent, Pull, Start, Told, config_of, party_of

GOALS = {"bank": 0.0, "lab": 1.0, "ward": 2.0}


@pytest.fixture(autouse=True)
def _a_disk_without_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What reaches the disk when is not seen by a test, and takes its time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def residents(folder: Path, **trainees: Pull) -> list[ResidentParty]:
    known = {name: Pull(goal) for name, goal in GOALS.items()} | trainees
    return [party_of(folder, name, known[name]) for name in sorted(known)]


def coordinator(folder: Path, parties: Parties, **values: Any) -> Coordinator:
    given: dict[str, Any] = {"model": Start()}
    given |= {name: values.pop(name) for name in ("model", "watch", "gathering") if name in values}
    config = config_of(folder, **values)
    given.setdefault("gathering", PlainGathering(config))
    return Coordinator(config, RECIPE, parties=parties, **given)


def run(folder: Path, parties: Sequence[Party] | Parties, **values: Any) -> Federated:
    if isinstance(parties, Sequence):
        parties = LocalParties(parties)
    try:
        return coordinator(folder, parties, **values).run()
    finally:
        parties.close()


def weights(folder: Path) -> dict[str, Tensor]:
    place = latest_checkpoint(folder / "run")
    assert place is not None
    return dict(read_checkpoint(place).weights)


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def undone(value: Any) -> Any:
    """Without what a clock decides."""
    if isinstance(value, Mapping):
        return {k: undone(v) for k, v in value.items() if k not in ("seconds", "traceback")}
    return value


def test_a_run_pulls_the_weights_to_all_parties(tmp_path: Path) -> None:
    model = Start()
    found = run(tmp_path, residents(tmp_path), rounds=8, model=model)
    (final,) = model.saved
    assert same(final, weights(tmp_path))
    assert float((final["encoder.weight"] - 1.0).abs().max()) < 0.15  # the mean of 0, 1 and 2
    assert [line.round for line in found.rounds] == list(range(1, 9))
    losses = [line.metrics["loss"] for line in found.rounds]
    assert losses[0] > losses[-1]
    assert (found.reason, found.resumed_from, found.without_model) == ("", None, {})
    line = found.rounds[0]
    assert line.bytes_up == sum(part.bytes_up for part in line.parties.values()) > 0
    assert line.bytes_down == sum(part.bytes_down for part in line.parties.values()) > 0
    assert set(line.parties) == set(GOALS)
    assert line.parties["ward"].loss == pytest.approx((0.5 - 2.0) ** 2)
    assert (line.lost, line.epsilon, line.attempts) == ({}, None, 1)


def test_the_journal_has_the_keys_that_scripts_rely_on(tmp_path: Path) -> None:
    found = run(tmp_path, residents(tmp_path)).to_dict()
    lines = (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == found["rounds"]
    keys = {"round", "metrics", "bytes_up", "bytes_down", "epsilon", "lost", "seconds", "parties"}
    assert all(keys <= line.keys() for line in found["rounds"])
    assert {"bytes_up", "bytes_down", "seconds", "loss"} == set(
        found["rounds"][0]["parties"]["lab"]
    )
    assert json.loads(json.dumps(found)) == found


def test_parties_keep_the_final_weights(tmp_path: Path) -> None:
    trainee = Pull(2.0)
    run(tmp_path, residents(tmp_path, ward=trainee))
    assert same(trainee.kept, weights(tmp_path))


def test_who_did_not_take_the_final_weights_is_named(tmp_path: Path) -> None:
    def silent_at_the_end(request: bytes, reply: bytes) -> bytes:
        return b"" if Message.unpack(request).kind == "end" else reply

    bank, lab, ward = residents(tmp_path)
    away: list[int] = []
    parties = Told(
        [bank, lab, Bent(ward, silent_at_the_end)],
        absent=lambda name, _: name == "lab" and bool(away),
    )
    found = run(tmp_path, parties, rounds=1, watch=Watch(line=lambda done: away.append(done.round)))
    assert found.rounds[0].lost == {}
    assert found.without_model.keys() == {"lab", "ward"}
    assert found.without_model["lab"] == "it is not here"
    assert "a message of 0 bytes" in found.without_model["ward"]


def test_one_party_alone_is_the_average(tmp_path: Path) -> None:
    alone = Pull(2.0)
    found = run(tmp_path, [party_of(tmp_path, "ward", alone)], rounds=1)
    orders = Orders(found.run, 1, Start().moving(1), ("ward",), 0)
    before = alone.shared()
    delta = Pull(2.0).fit(orders, before).delta
    for name, value in weights(tmp_path).items():
        assert torch.equal(value, (before[name].double() + delta[name].double()).float())


@pytest.mark.parametrize("kind", ["average", "trimmed", "median", "krum"])
def test_no_order_of_replies_changes_a_bit(tmp_path: Path, kind: Any) -> None:
    def shuffled(names: list[str]) -> list[str]:
        return random.Random(3).sample(names, len(names))

    values: dict[str, Any] = {"mean": {"kind": kind, "optimiser": "yogi", "rate": 0.1}}
    run(tmp_path / "a", residents(tmp_path / "a"), **values)
    run(tmp_path / "b", Told(residents(tmp_path / "b"), order=shuffled), **values)
    run(tmp_path / "c", LocalParties(residents(tmp_path / "c"), at_once=True), **values)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert same(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_a_message_that_comes_twice_counts_once(tmp_path: Path) -> None:
    once = run(tmp_path / "a", residents(tmp_path / "a"))
    found = run(tmp_path / "b", Told(residents(tmp_path / "b"), twice=True))
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert found.rounds[0].lost == {}
    later = [[line.bytes_up for line in each.rounds[1:]] for each in (found, once)]
    assert later[0] == later[1]  # in the first they join, and say what time it is


def bent(change: Callable[[Message], Message]) -> Callable[[bytes, bytes], bytes]:
    def bend(request: bytes, reply: bytes) -> bytes:
        message = Message.unpack(reply)
        return change(message).pack() if message.kind == "update" else reply

    return bend


def with_tensors(change: Callable[[Tensor], Tensor]) -> Callable[[bytes, bytes], bytes]:
    return bent(lambda m: replace(m, tensors={n: change(v) for n, v in m.tensors.items()}))


def content(**values: Any) -> Callable[[bytes, bytes], bytes]:
    return bent(lambda m: replace(m, content={**m.content, **values}))


def nonsense(_: bytes, reply: bytes) -> bytes:
    return b"nonsense" if Message.unpack(reply).kind == "update" else reply


def written(told: str) -> Callable[[bytes, bytes], bytes]:
    """An update that says so, in JSON that this package would not write."""

    def bend(_: bytes, reply: bytes) -> bytes:
        found = Message.unpack(reply)
        if found.kind != "update":
            return reply
        envelope = f'"run": "{found.run}", "round": {found.round}, "party": "ward"'
        return save({}, metadata={"about": f"{{{envelope}, {told}}}"})

    return bend


DEEP = "[" * 100_000 + "]" * 100_000

FAULTS = {
    "nan": (with_tensors(lambda v: v * float("nan")), "holds a number that is not finite"),
    "shape": (with_tensors(lambda v: v[None]), "has the shape"),
    "huge": (with_tensors(lambda v: v + 1e9), "changes by 1e\\+09"),
    "type": (with_tensors(lambda v: v.double()), "holds torch.float64"),
    "nameless": (bent(lambda m: replace(m, tensors={})), "no change of"),
    "round": (bent(lambda m: replace(m, round=0)), "a replay\\?\\): 0, not 1"),
    "run": (bent(lambda m: replace(m, run="old")), "a replay\\?\\): 'old', not"),
    "other": (bent(lambda m: replace(m, party="bank")), "'bank', not 'ward'"),
    "kind": (bent(lambda m: replace(m, kind="kept")), "'kept', not 'update'"),
    "inside": (content(round=0), "is a replay in round 1"),
    "weight": (content(weight=float(10**30)), "its weight is 1e\\+30"),
    "bytes": (nonsense, "a message of 8 bytes that cannot be understood"),
    "a loss of many digits": (content(metrics={"loss": 10**400}), "a number of 401 digits"),
    "an epsilon past 64 bits": (content(epsilon=2**65), "a number of 20 digits"),
    "a number without end": (
        written('"kind": "update", "content": {"epsilon": Infinity}'),
        "Infinity is no finite number",
    ),
    "a number that overflows": (
        written('"kind": "update", "content": {"epsilon": 1e999}'),
        "1e999 is no finite number",
    ),
    "half a surrogate pair": (
        written(r'"kind": "fault", "content": {"message": "\ud800"}'),
        "surrogates not allowed",
    ),
    "tables in tables": (
        written(f'"kind": "update", "content": {{"metrics": {DEEP}}}'),
        "tables stand in each other without end",
    ),
    "a metric with a long name": (
        content(metrics={"loss": 1.0, "m" * 10**6: 1.0}),
        "the name of a metric has 1000000 characters",
    ),
    "large": (
        bent(lambda m: replace(m, tensors={"w": torch.zeros(10**7)})),
        "a message of .* bytes, at most .* are read",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_round_goes_on_without_a_party_that_is_broken(tmp_path: Path, fault: str) -> None:
    bend, reason = FAULTS[fault]
    bank, lab, ward = residents(tmp_path / "a")
    found = run(tmp_path / "a", [bank, lab, Bent(ward, bend)], rounds=1, expected=3)
    (line,) = found.rounds
    assert set(line.lost) == {"ward"}
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(line.lost["ward"])
    two = residents(tmp_path / "b")[:2]
    run(tmp_path / "b", two, rounds=1)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert line.attempts == 1


def test_a_reply_of_the_round_before_is_a_replay(tmp_path: Path) -> None:
    kept: list[bytes] = []

    def replaying(_: bytes, reply: bytes) -> bytes:
        if Message.unpack(reply).kind == "update":
            kept.append(reply)
            return kept[0]
        return reply

    bank, lab, ward = residents(tmp_path)
    found = run(tmp_path, [bank, lab, Bent(ward, replaying)], rounds=2)
    assert found.rounds[0].lost == {}
    assert "a replay?): 1, not 2" in found.rounds[1].lost["ward"]


def test_a_party_is_told_which_of_its_updates_counted(tmp_path: Path) -> None:
    told: list[int] = []

    def losing(request: bytes, reply: bytes) -> bytes:
        asked = Message.unpack(request)
        if asked.kind == "train":
            told.append(asked.content["counted"])
        return b"" if (asked.kind, asked.round) == ("train", 2) else reply

    bank, lab, ward = residents(tmp_path)
    found = run(tmp_path, [bank, lab, Bent(ward, losing)], rounds=4)
    assert [sorted(line.lost) for line in found.rounds] == [[], ["ward"], [], []]
    assert told == [0, 1, 1, 3]  # what rounding lost in round 2 was lost with its update


def test_a_party_that_fails_shows_its_traceback(tmp_path: Path) -> None:
    def fail(orders: Orders) -> None:
        if orders.round == 2:
            raise ZeroDivisionError("question 17: Anna")

    found = run(tmp_path, residents(tmp_path, ward=Pull(2.0, meanwhile=fail)))
    assert [set(line.lost) for line in found.rounds] == [set(), {"ward"}, set()]
    assert found.rounds[1].lost["ward"] == "ZeroDivisionError; the party's own log says more"
    trace = found.rounds[1].parties["ward"].traceback
    assert "ZeroDivisionError\n  consilience/federation/party.py:" in trace
    assert "in fail" in trace
    assert "Anna" not in (tmp_path / "run" / "rounds.jsonl").read_text()


def test_a_canary_is_in_no_byte_that_leaves(tmp_path: Path) -> None:
    canary = "Zylberstein"

    def fail(orders: Orders) -> None:
        if orders.round == 1:
            raise ConsilienceError(f"cannot read {canary}", hint=f"mend {canary}")
        raise ValueError(canary)

    parties = Told(residents(tmp_path, ward=Pull(2.0, meanwhile=fail)))
    found = run(tmp_path, parties)
    assert len(parties.bodies) > 10
    assert not any(canary.encode() in body for _, body in parties.bodies)
    assert found.rounds[0].lost["ward"].startswith("an error of the kind error")


def test_who_is_late_is_left_behind_and_catches_up(tmp_path: Path) -> None:
    over = Event()

    def slow(orders: Orders) -> None:
        if orders.round == 1:
            assert over.wait(60)

    ward = Pull(2.0, meanwhile=slow)
    found = run(
        tmp_path,
        LocalParties(residents(tmp_path, ward=ward), at_once=True),
        quorum=2,
        grace=1,
        watch=Watch(line=lambda _: over.set()),
    )
    assert found.rounds[0].lost == {"ward": "no reply within 1 s"}
    assert found.rounds[-1].lost == {}
    assert ward.fits == [1, 2, 3]


def test_a_party_that_left_comes_back(tmp_path: Path) -> None:
    away = {"from": 10**9, "to": 10**9}
    parties = Told(
        residents(tmp_path),
        absent=lambda name, look: name == "ward" and away["from"] <= look < away["to"],
    )

    def line(done: Line) -> None:
        if done.round == 1:
            away["from"], away["to"] = parties.looks, parties.looks + 2

    found = run(tmp_path, parties, rounds=5, watch=Watch(line=line))
    lost = [line.lost.get("ward", "") for line in found.rounds]
    assert lost[1] == "it is not here"
    assert lost[-1] == ""
    assert found.rounds[-1].parties["ward"].loss is not None


def test_parties_that_do_not_fit_are_refused_with_the_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    others = {
        "model": Pull(1.0, model="model-2"),
        "words": Pull(1.0, tokenizer="words-2"),
        "shape": Pull(1.0, shapes={**SHAPES, "temperature": (2,)}),
    }

    def describing(**values: Any) -> Callable[[bytes, bytes], bytes]:
        def bend(_: bytes, reply: bytes) -> bytes:
            message = Message.unpack(reply)
            if message.kind != "description":
                return reply
            said = {"description": {**message.content["description"], **values}}
            return replace(message, content=said).pack()

        return bend

    parties: list[Party] = list(residents(tmp_path, **others))
    bends: dict[str, dict[str, Any]] = {
        "old": {"version": "0.0.9"},
        "new": {"protocol": 2},
        "early": {"clock": time.time() - 1000},
        "late": {"clock": time.time() + 1000},
        "liar": {"party": "bank"},
        "mute": {"shared": None},
        "endless": {"model": "m" * 10**6},
        "timeless": {"clock": 10**400},
    }
    for name, values in bends.items():
        parties.append(Bent(party_of(tmp_path, name, Pull(1.0)), describing(**values)))
    empty = ResidentParty(
        "empty",
        lambda _, __: Pull(refuse_empty()),
        lambda _, place: PlainSealing("float32", place),
        state=tmp_path / "empty",
        limits=Limits(),
    )
    parties.append(empty)
    found = run(tmp_path, parties, expected=3, quorum=3, watch=Watch(say=said.append))
    lost = found.rounds[0].lost
    version = __version__
    assert lost["model"] == "its model is model-2, the coordinator's model-1"
    assert lost["words"] == "its tokenizer is words-2, the coordinator's words-1"
    assert lost["shape"] == (
        "1 shared weights differ, among them temperature: its shape is (2,), the coordinator's ()"
    )
    assert lost["old"] == f"it runs version 0.0.9, the coordinator {version}"
    assert lost["new"] == "it speaks protocol 2, the coordinator 1"
    assert lost["early"].startswith("its clock is 1000 s behind the coordinator's, at most 300 s")
    assert lost["late"].startswith(("its clock is 999 s ahead", "its clock is 1000 s ahead"))
    assert lost["liar"] == "it calls itself 'bank'"
    assert lost["mute"] == "it does not say what it is"
    assert lost["endless"] == f"its model is {'m' * 10**6}"[:4000]
    assert "a number of 401 digits" in lost["timeless"]
    assert lost["empty"] == "the store is empty; add documents to it"
    assert {line.split(" takes no part")[0] for line in said} == set(lost)
    assert found.rounds[-1].lost == lost
    assert found.without_model == {}


def refuse_empty() -> float:
    raise UsageError("the store is empty", hint="add documents to it")


def test_another_patch_of_the_version_takes_part(tmp_path: Path) -> None:
    def bend(_: bytes, reply: bytes) -> bytes:
        message = Message.unpack(reply)
        if message.kind != "description":
            return reply
        major, minor, _patch = __version__.split(".")
        told = {**message.content["description"], "version": f"{major}.{minor}.99"}
        return replace(message, content={"description": told}).pack()

    bank, lab, ward = residents(tmp_path)
    assert run(tmp_path, [bank, lab, Bent(ward, bend)]).rounds[0].lost == {}


def test_too_few_that_fit_are_said_with_reasons(tmp_path: Path) -> None:
    parties = [party_of(tmp_path, "ward", Pull(1.0, model="model-2"))]
    with pytest.raises(RemoteError) as caught:
        run(tmp_path, parties)
    assert caught.value.message == (
        "0 parties take part, at least 1 must: "
        "ward: its model is model-2, the coordinator's model-1"
    )


def test_expected_parties_are_waited_for(tmp_path: Path) -> None:
    parties = Told(residents(tmp_path), absent=lambda name, look: name == "ward" and look < 4)
    found = run(tmp_path, parties, expected=3)
    assert set(found.rounds[0].parties) == set(GOALS)
    with pytest.raises(RemoteError, match="3 parties take part, at least 5 must: nobody else came"):
        run(tmp_path / "b", residents(tmp_path / "b"), expected=9, deadline=1)


def test_a_round_waits_for_its_quorum_to_be_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consilience.federation.rounds._PAUSE", 0.0)
    parties = Told(residents(tmp_path), absent=lambda name, look: name == "ward" and 1 < look < 9)
    found = run(tmp_path, parties, quorum=3, rounds=1)
    assert parties.looks >= 9
    assert [(line.attempts, line.lost) for line in found.rounds] == [(1, {})]


def test_a_reason_without_end_is_cut(tmp_path: Path) -> None:
    def talking(_: bytes, reply: bytes) -> bytes:
        said = Message.unpack(reply)
        told = {"message": "m" * 10**6, "traceback": "t" * 10**6}
        return reply if said.kind != "update" else replace(said, kind="fault", content=told).pack()

    bank, lab, ward = residents(tmp_path)
    (line,) = run(tmp_path, [bank, lab, Bent(ward, talking)], rounds=1).rounds
    assert line.lost == {"ward": "m" * 4000}
    assert line.parties["ward"].traceback == "t" * 4000


def test_too_few_answers_repeat_the_round_and_then_stop(tmp_path: Path) -> None:
    said: list[str] = []

    def fail(orders: Orders) -> None:
        if orders.round == 2:
            raise MemoryError

    trainees = {name: Pull(goal, meanwhile=fail) for name, goal in GOALS.items()}
    trainees["bank"].meanwhile = lambda _: None
    with pytest.raises(RemoteError) as caught:
        run(tmp_path, residents(tmp_path, **trainees), watch=Watch(say=said.append))
    assert caught.value.message == (
        f"round 2 failed {1 + REPEATS} times; the last time 1 updates count, at least 2 must: "
        "lab: MemoryError; the party's own log says more; "
        "ward: MemoryError; the party's own log says more"
    )
    assert "it goes on after round 1" in caught.value.hint
    assert len(said) == 1 + REPEATS
    assert trainees["bank"].fits == [1, 2]  # trained once, however often it was asked
    trainees["ward"].meanwhile = trainees["lab"].meanwhile = lambda _: None
    found = run(tmp_path, residents(tmp_path, **trainees))
    assert found.resumed_from == 1
    run(tmp_path / "b", residents(tmp_path / "b"))
    assert same(weights(tmp_path), weights(tmp_path / "b"))


def test_a_round_that_works_the_second_time_says_so(tmp_path: Path) -> None:
    failed: list[str] = []

    def once(name: str) -> Callable[[Orders], None]:
        def fail(orders: Orders) -> None:
            if orders.round == 2 and name not in failed:
                failed.append(name)
                raise MemoryError

        return fail

    trainees = {name: Pull(goal, meanwhile=once(name)) for name, goal in GOALS.items()}
    found = run(tmp_path, residents(tmp_path, **trainees))
    assert [line.attempts for line in found.rounds] == [1, 2, 1]
    assert found.rounds[1].lost == {}
    asked = [line.parties["lab"].bytes_down for line in found.rounds]
    assert 1.9 < asked[1] / asked[2] < 2.1  # both attempts are counted
    run(tmp_path / "b", residents(tmp_path / "b"))
    assert same(weights(tmp_path), weights(tmp_path / "b"))


def test_a_quorum_is_needed_of_updates_that_count(tmp_path: Path) -> None:
    bank, lab, ward = residents(tmp_path)
    broken = Bent(ward, FAULTS["nan"][0])
    with pytest.raises(RemoteError, match="2 updates count, at least 3 must: ward: "):
        run(tmp_path, [bank, lab, broken], quorum=3)


class Counted(PlainGathering):
    """Asks everybody once more, as sums that are secret do."""

    attempts: list[int]

    def gather(
        self, orders: Orders, sealed: Mapping[str, Parcel], weights: Weights, ask: Ask
    ) -> Gathered:
        self.attempts.append(orders.attempt)
        told = ask({name: Parcel({"who": sorted(sealed)}, {}) for name in sealed})
        assert {name: reply.about for name, reply in told.items()} == {
            name: {"heard": sorted(sealed)} for name in sealed
        }
        if len(self.attempts) == 1:
            raise ConsilienceError("a share is missing")
        return super().gather(orders, sealed, weights, ask)


class Answering(PlainSealing):
    def further(self, request: Parcel, orders: Orders) -> Parcel:
        return Parcel({"heard": request.about["who"]})


def test_a_gathering_may_ask_further_and_fail(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    gathering = Counted(config)
    gathering.attempts = []
    parties = [
        ResidentParty(
            name,
            lambda _, __, goal=goal: Pull(goal),  # type: ignore[misc]
            lambda _, place: Answering("float32", place),
            state=tmp_path / name,
            limits=Limits(),
        )
        for name, goal in GOALS.items()
    ]
    found = run(tmp_path, parties, gathering=gathering)
    assert gathering.attempts == [1, 2, 1, 1]
    assert [line.attempts for line in found.rounds] == [2, 1, 1]
    run(tmp_path / "b", residents(tmp_path / "b"))
    assert same(weights(tmp_path), weights(tmp_path / "b"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"delta": {}}, "the sum is not of the weights that were asked for"),
        (
            {"delta": {n: torch.full(s, float("nan")) for n, s in SHAPES.items()}},
            "a number that is",
        ),
        ({"delta": {n: torch.zeros(7) for n in SHAPES}}, "another shape"),
        ({"metrics": {"loss": float("inf")}}, "the metrics hold a number that is none"),
    ],
)
def test_a_sum_that_cannot_be_is_not_committed(tmp_path: Path, change: Any, reason: str) -> None:
    class Wrong(PlainGathering):
        def gather(self, *args: Any, **values: Any) -> Gathered:
            return replace(super().gather(*args, **values), **change)

    with pytest.raises(RemoteError, match=reason):
        run(tmp_path, residents(tmp_path), gathering=Wrong(config_of(tmp_path)))
    assert checkpoints(tmp_path / "run") == []


def test_a_budget_that_the_first_round_would_exceed_is_refused(tmp_path: Path) -> None:
    trainees = {name: Pull(goal, budget=0) for name, goal in GOALS.items()}
    with pytest.raises(UsageError) as caught:
        run(tmp_path, residents(tmp_path, **trainees))
    kind = "an error of the kind usage; raise it; the party's own log says more"
    assert caught.value.message == (
        "the first round would exceed every budget of privacy: "
        f"bank: {kind}; lab: {kind}; ward: {kind}"
    )
    assert all(trainee.fits == [] for trainee in trainees.values())
    assert checkpoints(tmp_path / "run") == []


def test_a_party_that_wants_more_company_is_lost_with_its_reason(tmp_path: Path) -> None:
    shy = Pull(2.0)
    parties = [
        party_of(tmp_path, "bank", Pull(0.0)),
        party_of(tmp_path, "ward", shy, least_parties=3),
    ]
    found = run(tmp_path, parties, rounds=2)
    reason = "ward takes part only in rounds of at least 3 parties, and this one has 2"
    assert [line.lost["ward"].startswith(reason) for line in found.rounds] == [True, True]
    assert shy.fits == []
    assert [set(line.parties) for line in found.rounds] == [{"bank", "ward"}] * 2


def test_what_whole_parties_spend_is_reckoned(tmp_path: Path) -> None:
    noise = {"secure": {"sums": True}, "privacy": {"party_noise": 2.85, "delta": 1e-6}}
    config = config_of(tmp_path, **noise)
    told = [_party_epsilon(config, rounds) for rounds in (1, 20)]
    assert told == [party_epsilon(2.85, rounds=rounds, delta=1e-6) for rounds in (1, 20)]
    usual = replace(config, privacy=replace(config.privacy, delta=None))
    assert _party_epsilon(usual, 20) == party_epsilon(2.85, rounds=20, delta=1e-5)
    assert _party_epsilon(config_of(tmp_path), 20) is None


def test_what_whole_parties_spent_is_in_the_journal(tmp_path: Path) -> None:
    from consilience.federation.secure import SecureGathering

    noise = {**SECRET, "privacy": {"party_noise": 2.85}}
    gathering = SecureGathering(config_of(tmp_path, **noise).secure)
    found = run(tmp_path, secret_parties(tmp_path), gathering=gathering, **noise)
    wanted = [party_epsilon(2.85, rounds=rounds, delta=1e-5) for rounds in (1, 2)]
    assert [line.party_epsilon for line in found.rounds] == wanted


def test_what_the_most_spent_was_is_kept_when_its_party_leaves(tmp_path: Path) -> None:
    budgets = {"bank": 1, "lab": 9, "ward": 9}
    trainees = {name: Pull(GOALS[name], budget=budget) for name, budget in budgets.items()}
    found = run(tmp_path, residents(tmp_path, **trainees), rounds=2)
    assert set(found.rounds[1].lost) == {"bank"}
    assert [line.epsilon for line in found.rounds] == [1.0, 1.0]


def test_a_run_ends_early_when_all_budgets_are_spent(tmp_path: Path) -> None:
    budgets = {"bank": 1, "lab": 2, "ward": 2}
    trainees = {name: Pull(GOALS[name], budget=budget) for name, budget in budgets.items()}
    found = run(tmp_path, residents(tmp_path, **trainees), rounds=9)
    assert found.reason == "the privacy budgets of all parties are spent after round 2"
    assert [line.round for line in found.rounds] == [1, 2]
    assert [line.epsilon for line in found.rounds] == [1.0, 1.0]
    assert set(found.rounds[1].lost) == {"bank"}
    assert {name: trainee.fits for name, trainee in trainees.items()} == {
        "bank": [1],
        "lab": [1, 2],
        "ward": [1, 2],
    }
    assert all(trainee.kept for trainee in trainees.values())
    again = run(tmp_path, residents(tmp_path, **trainees), rounds=9)
    assert again.to_dict() == found.to_dict() | {"resumed_from": 2}


def test_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    first = run(tmp_path, residents(tmp_path))
    nobody: Parties = LocalParties([])
    again = run(tmp_path, nobody)
    assert again.to_dict() == first.to_dict() | {"resumed_from": 3}


def test_a_run_may_be_made_longer(tmp_path: Path) -> None:
    shorter = run(tmp_path, residents(tmp_path), rounds=2)
    found = run(tmp_path, residents(tmp_path), rounds=4)
    assert (found.run, found.resumed_from, len(found.rounds)) == (shorter.run, 2, 4)
    run(tmp_path / "b", residents(tmp_path / "b"), rounds=4)
    assert same(weights(tmp_path), weights(tmp_path / "b"))


def test_a_folder_is_of_one_run(tmp_path: Path) -> None:
    run(tmp_path, residents(tmp_path))
    told = r"with other settings: proximal was 0\.0, now 0\.5; seed was 0, now 2"
    with pytest.raises(UsageError, match=told):
        run(tmp_path, residents(tmp_path), seed=2, proximal=0.5)
    other = coordinator(tmp_path, LocalParties([]))
    other.recipe = {"objectives": {"token": 1}}
    with pytest.raises(UsageError, match=r'recipe\.objectives was .*, now {"token": 1}'):
        other.run()


def test_a_folder_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    run(tmp_path, residents(tmp_path), rounds=2)
    (place,) = tmp_path.rglob("config.json")
    found = json.loads(place.read_text(encoding="utf-8"))
    del found["scaffold"], found["travel"]["precision"]
    place.write_text(json.dumps(found), encoding="utf-8")
    assert run(tmp_path, residents(tmp_path), rounds=3).resumed_from == 2


def test_with_a_budget_a_run_is_not_made_longer(tmp_path: Path) -> None:
    private: dict[str, Any] = {"privacy": {"epsilon": 4}, "travel": {"kind": "alternate"}}
    run(tmp_path, residents(tmp_path), rounds=1, **private)
    with pytest.raises(UsageError, match="with other settings: rounds was 1, now 2"):
        run(tmp_path, residents(tmp_path), rounds=2, **private)


def test_who_took_part_before_a_restart_is_missed_after_it(tmp_path: Path) -> None:
    run(tmp_path, residents(tmp_path), rounds=1)
    found = run(tmp_path, residents(tmp_path)[:2], rounds=2)
    assert [line.lost for line in found.rounds] == [{}, {"ward": "it is not here"}]


def test_optimisers_go_on_where_they_were(tmp_path: Path) -> None:
    mean = {"optimiser": "adam", "rate": 0.05}
    run(tmp_path, residents(tmp_path), rounds=2, mean=mean)
    run(tmp_path, residents(tmp_path), rounds=5, mean=mean)
    run(tmp_path / "b", residents(tmp_path / "b"), rounds=5, mean=mean)
    assert same(weights(tmp_path), weights(tmp_path / "b"))


@pytest.mark.parametrize("fault", ["turned", "hundredfold"])
@pytest.mark.parametrize("kind", ["trimmed", "median", "krum"])
def test_three_hostile_parties_of_ten_do_not_decide(tmp_path: Path, fault: str, kind: str) -> None:
    bend = with_tensors({"turned": lambda v: -3 * v, "hundredfold": lambda v: 100 * v}[fault])
    honest = {f"h{n}": Pull(1.0 + n / 50) for n in range(7)}
    parties: list[Party] = [party_of(tmp_path, name, each) for name, each in honest.items()]
    parties += [Bent(party_of(tmp_path, f"x{n}", Pull(1.0)), bend) for n in range(3)]
    run(tmp_path, parties, rounds=8, mean={"kind": kind, "hostile": 0.3})
    found = weights(tmp_path)["encoder.weight"]
    assert float((found - 1.06).abs().max()) < 0.1


class StopError(BaseException):
    pass


def counting(monkeypatch: pytest.MonkeyPatch, stop_at: int) -> dict[str, int]:
    """Stop before the nth time that something reaches the disk."""
    calls = {"n": 0}
    for name in ("fdopen", "fsync", "replace", "rename", "mkdir", "unlink"):
        real = getattr(os, name)

        def stopping(*args: Any, real: Any = real, **values: Any) -> Any:
            calls["n"] += 1
            if calls["n"] == stop_at:
                raise StopError
            return real(*args, **values)

        monkeypatch.setattr(os, name, stopping)
    return calls


def test_a_kill_at_any_write_changes_nothing_in_the_end(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "rounds": 2,
        "travel": {"kind": "full", "precision": "int8"},
        "mean": {"optimiser": "yogi", "rate": 0.1},
    }
    names = ("bank", "ward")

    def parties(folder: Path) -> list[ResidentParty]:
        return [party_of(folder, name, Pull(GOALS[name])) for name in names]

    with pytest.MonkeyPatch.context() as patch:
        calls = counting(patch, stop_at=-1)
        whole = run(tmp_path / "whole", parties(tmp_path / "whole"), **values)
        total = calls["n"]
    wanted = weights(tmp_path / "whole")
    assert total > 60
    for stop_at in range(1, total + 1):
        folder = tmp_path / str(stop_at)
        with pytest.MonkeyPatch.context() as patch:
            counting(patch, stop_at)
            with pytest.raises(StopError):
                run(folder, parties(folder), **values)
        before = (folder / "run" / "run.json").is_file() and (
            json.loads((folder / "run" / "run.json").read_text())["run"]
        )
        found = run(folder, parties(folder), **values)
        assert same(weights(folder), wanted), f"stopped at write {stop_at} of {total}"
        assert before in (False, found.run)
        assert [undone(line.metrics) for line in found.rounds] == [
            undone(line.metrics) for line in whole.rounds
        ]
        assert read_standing(folder / "run").rounds == found.rounds
        assert not list(folder.rglob("*.part"))[1:]


def test_a_stop_between_rounds_and_in_training_changes_nothing(tmp_path: Path) -> None:
    run(tmp_path / "whole", residents(tmp_path / "whole"))
    for number in (1, 2, 3):
        for name in GOALS:
            folder = tmp_path / f"{number}-{name}"

            def stop(orders: Orders, number: int = number) -> None:
                if orders.round == number:
                    raise StopError

            trainee = Pull(GOALS[name], meanwhile=stop)
            with pytest.raises(StopError):
                run(folder, residents(folder, **{name: trainee}))
            found = run(folder, residents(folder))
            assert found.resumed_from == (number - 1 or None)
            assert same(weights(folder), weights(tmp_path / "whole"))


def test_a_full_disk_keeps_what_is_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(orders: Orders) -> None:
        if orders.round == 2:
            monkeypatch.setattr(os, "fsync", no_room)

    def no_room(_: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(ConsilienceError) as caught:
        run(tmp_path, residents(tmp_path, ward=Pull(2.0, meanwhile=full)))
    monkeypatch.undo()
    assert "No space left on device" in caught.value.message
    assert [line.round for line in read_standing(tmp_path / "run").rounds] == [1]
    found = run(tmp_path, residents(tmp_path))
    assert found.resumed_from == 1


def test_attempts_never_come_twice(tmp_path: Path) -> None:
    attempts: list[tuple[int, int]] = []

    def stop(orders: Orders) -> None:
        attempts.append((orders.round, orders.attempt))
        if len(attempts) == 1:
            raise StopError

    trainee = Pull(2.0, meanwhile=stop)
    with pytest.raises(StopError):
        run(tmp_path, residents(tmp_path, ward=trainee), rounds=2)
    run(tmp_path, residents(tmp_path, ward=trainee), rounds=2)
    assert attempts == [(1, 1), (1, 2), (2, 1)]


def test_how_a_run_stands_is_read_while_it_runs(tmp_path: Path) -> None:
    seen: list[tuple[int, bool]] = []

    def line(_: Line) -> None:
        standing = read_standing(tmp_path / "run")
        seen.append((len(standing.rounds), standing.ended))

    found = run(tmp_path, residents(tmp_path), watch=Watch(line=line))
    assert seen == [(1, False), (2, False), (3, False)]
    standing = read_standing(tmp_path / "run")
    assert (standing.ended, standing.of, standing.run) == (True, 3, found.run)
    assert standing.parties == ("bank", "lab", "ward")
    assert (standing.lost, standing.epsilon) == ({}, None)
    assert standing.rounds == found.rounds
    json.dumps(standing.to_dict())


def test_a_folder_without_a_run_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConsilienceError, match="no federation in"):
        read_standing(tmp_path)


def test_updates_of_protocols_are_the_fakes(tmp_path: Path) -> None:
    """The fakes are what the contracts ask for."""
    gathering: Gathering = PlainGathering(config_of(tmp_path))
    update: Update = Pull(1.0).fit(Orders("r", 1, tuple(SHAPES), ("a",), 1), Pull(1.0).shared())
    assert gathering is not None
    assert set(update.delta) == set(SHAPES)


def secret_parties(folder: Path, **trainees: Pull) -> list[ResidentParty]:
    """Parties whose sums are secret."""
    from consilience.federation.secure import Roster, SecureSealing, new_party_key

    keys = {name: new_party_key() for name in GOALS}
    roster = Roster({name: key.public for name, key in keys.items()})
    known = {name: Pull(goal) for name, goal in GOALS.items()} | trainees
    return [
        ResidentParty(
            name,
            lambda _, __, name=name: known[name],  # type: ignore[misc]
            lambda config, place, name=name: SecureSealing(  # type: ignore[misc]
                name, keys[name], roster, place, config.secure
            ),
            state=folder / name,
            limits=Limits(),
        )
        for name in sorted(GOALS)
    ]


SECRET: dict[str, Any] = {"secure": {"sums": True, "longest": 2.0, "threshold": 2}, "rounds": 2}


def secret_run(folder: Path, parties: Sequence[Party], **values: Any) -> Federated:
    from consilience.federation.secure import SecureGathering

    config = config_of(folder, **SECRET)
    return run(folder, parties, gathering=SecureGathering(config.secure), **SECRET, **values)


def test_sums_that_are_secret_bear_a_party_that_leaves(tmp_path: Path) -> None:
    def fail(orders: Orders) -> None:
        if orders.round == 2:
            raise MemoryError

    found = secret_run(tmp_path, secret_parties(tmp_path, ward=Pull(2.0, meanwhile=fail)))
    assert [set(line.lost) for line in found.rounds] == [set(), {"ward"}]
    run(tmp_path / "b", residents(tmp_path / "b", ward=Pull(2.0, meanwhile=fail)), rounds=2)
    one, other = weights(tmp_path), weights(tmp_path / "b")
    assert max(float((one[name] - other[name]).abs().max()) for name in one) < 1e-4


def test_a_party_that_is_silent_in_the_second_message_does_not_spoil_the_sum(
    tmp_path: Path,
) -> None:
    asked: list[tuple[int, int]] = []

    def silent(request: bytes, reply: bytes) -> bytes:
        message = Message.unpack(request)
        if message.kind == "further":
            assert message.orders is not None
            asked.append((message.round, message.orders.attempt))
            return b""
        return reply

    bank, lab, ward = secret_parties(tmp_path)
    found = secret_run(tmp_path, [bank, lab, Bent(ward, silent)])
    assert asked == [(1, 1), (2, 1)]
    assert [line.lost for line in found.rounds] == [{}, {}]  # its update is in the sum
    assert [line.attempts for line in found.rounds] == [1, 1]
    run(tmp_path / "b", residents(tmp_path / "b"), rounds=2)
    one, other = weights(tmp_path), weights(tmp_path / "b")
    assert max(float((one[name] - other[name]).abs().max()) for name in one) < 1e-4


def test_a_sum_that_cannot_be_unmasked_is_begun_again_with_the_same_updates(
    tmp_path: Path,
) -> None:
    attempts: list[tuple[str, int, int]] = []
    trainees = {name: Pull(goal) for name, goal in GOALS.items()}

    def silent_at_first(name: str) -> Callable[[bytes, bytes], bytes]:
        def bend(request: bytes, reply: bytes) -> bytes:
            message = Message.unpack(request)
            if message.kind == "further" and message.orders is not None:
                attempts.append((name, message.round, message.orders.attempt))
                return b"" if message.orders.attempt == 1 and message.round == 1 else reply
            return reply

        return bend

    bank, lab, ward = secret_parties(tmp_path, **trainees)
    silent = [Bent(each, silent_at_first(each.name)) for each in (lab, ward)]
    parties: list[Party] = [bank, *silent]
    found = secret_run(tmp_path, parties)
    assert [line.attempts for line in found.rounds] == [2, 1]
    assert ("ward", 1, 2) in attempts
    assert all(trainee.fits == [1, 2] for trainee in trainees.values())
    run(tmp_path / "b", residents(tmp_path / "b"), rounds=2)
    one, other = weights(tmp_path), weights(tmp_path / "b")
    assert max(float((one[name] - other[name]).abs().max()) for name in one) < 1e-4


def test_a_coordinator_killed_between_the_two_messages_goes_on(tmp_path: Path) -> None:
    stopped: list[int] = []

    def stop(request: bytes, reply: bytes) -> bytes:
        if Message.unpack(request).kind == "further" and not stopped:
            stopped.append(1)
            raise StopError
        return reply

    trainees = {name: Pull(goal) for name, goal in GOALS.items()}
    bank, lab, ward = secret_parties(tmp_path, **trainees)
    parties: list[Party] = [bank, lab, Bent(ward, stop)]
    with pytest.raises(StopError):
        secret_run(tmp_path, parties)
    found = secret_run(tmp_path, parties)
    assert [set(line.lost) for line in found.rounds] == [set(), set()]
    assert all(trainee.fits == [1, 2] for trainee in trainees.values())


def test_a_secret_sum_that_never_opens_costs_its_round_only(tmp_path: Path) -> None:
    """Parties tell for one sum a round; no repeat of it can be opened by others."""

    def silent(request: bytes, reply: bytes) -> bytes:
        message = Message.unpack(request)
        return b"" if message.kind == "further" and message.round == 1 else reply

    said: list[str] = []
    bank, lab, ward = secret_parties(tmp_path)
    parties: list[Party] = [bank, Bent(lab, silent), Bent(ward, silent)]
    before = Start().shared()
    found = secret_run(tmp_path, parties, watch=Watch(say=said.append))
    first, second = found.rounds
    assert (first.metrics, first.attempts) == ({}, 1 + REPEATS)
    assert second.metrics
    assert "round 1 is given up; the next begins from the same weights" in said
    after = weights(tmp_path)
    assert not same(after, before)
    # What came of it is one round from the weights that the run began with.
    run(tmp_path / "b", residents(tmp_path / "b"), rounds=1)
    other = weights(tmp_path / "b")
    assert max(float((after[name] - other[name]).abs().max()) for name in after) < 0.05


def test_a_secret_sum_over_different_weights_does_not_open(tmp_path: Path) -> None:
    """A coordinator cannot make one party's update stand out by what it sends to it."""

    class Other:
        """A party that is sent weights of its own."""

        def __init__(self, party: Party) -> None:
            self._party, self.name = party, party.name

        def answer(self, request: bytes) -> bytes:
            message = Message.unpack(request)
            if message.kind != "train":
                return self._party.answer(request)
            tensors = {name: value + 1 for name, value in message.tensors.items()}
            return self._party.answer(replace(message, tensors=tensors).pack())

    bank, lab, ward = secret_parties(tmp_path)
    said: list[str] = []
    found = secret_run(tmp_path, [bank, lab, Other(ward)], watch=Watch(say=said.append))
    for line in found.rounds:
        assert line.metrics == {} or "ward" in line.lost
