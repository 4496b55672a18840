import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from consilience.errors import UsageError
from consilience.federation.contracts import PROTOCOL, Description, Orders
from consilience.federation.durable import read_table, write_whole
from consilience.federation.messages import Message
from consilience.federation.parcels import Parcel
from consilience.federation.party import ResidentParty
from consilience.federation.payload import PlainSealing, opened
from consilience.federation.privacy import Ledger
from consilience.federation.privacy import ledger as ledgers
from consilience.federation.privacy.ledger import Spent
from consilience.federation.secure import PartyKey
from consilience.federation.terms import Limits, terms_of
from consilience.retrieval.derived import exclusive
from consilience.training.settings import parse_settings
from tests.federation.fakes import RECIPE, SHAPES, Pull, config_of, party_of, start
from tests.federation.small import fault, said

CANARY = "Frau Anna Zylberstein, HIV positive"


def join(folder: Path, run: str = "run-1", **values: Any) -> bytes:
    content = {"protocol": PROTOCOL, "terms": terms_of(config_of(folder, **values))}
    return Message("join", run, 0, "ward", content | {"recipe": RECIPE}).pack()


def train(number: int = 1, run: str = "run-1", attempt: int = 1, **values: Any) -> bytes:
    orders = Orders(run, number, tuple(sorted(SHAPES)), ("ward",), 7, attempt)
    plain: dict[str, Any] = {"content": {"counted": number - 1}, "tensors": start()}
    return Message("train", run, number, "ward", orders=orders, **plain | values).pack()


def test_joining_tells_what_the_party_is(tmp_path: Path) -> None:
    reply = said(party_of(tmp_path, "ward", Pull(1.0)), join(tmp_path))
    assert (reply.kind, reply.run, reply.party) == ("description", "run-1", "ward")
    found = Description.parse(reply.content["description"])
    assert (found.party, found.model, found.tokenizer) == ("ward", "model-1", "words-1")
    assert found.shared == SHAPES


def test_a_round_is_trained_and_sealed(tmp_path: Path) -> None:
    party, trainee = party_of(tmp_path, "ward", Pull(1.0)), Pull(1.0)
    party.answer(join(tmp_path))
    reply = said(party, train())
    orders = Orders("run-1", 1, tuple(sorted(SHAPES)), ("ward",), 7)
    found = opened(reply.parcel, orders, SHAPES)
    wanted = trainee.fit(orders, start())
    assert reply.kind == "update"
    assert torch.equal(found.delta["encoder.weight"], wanted.delta["encoder.weight"])


def test_the_same_request_is_answered_without_training_again(tmp_path: Path) -> None:
    trainee = Pull(1.0)
    party = party_of(tmp_path, "ward", trainee)
    party.answer(join(tmp_path))
    first = party.answer(train())
    assert party.answer(train()) == first
    assert party.answer(join(tmp_path)) != b""  # joining again changes nothing
    assert party.answer(train()) == first
    restarted = party_of(tmp_path, "ward", trainee)
    assert restarted.answer(train()) == first  # without being asked to join again
    assert trainee.fits == [1]


def test_another_attempt_seals_the_same_update(tmp_path: Path) -> None:
    trainee = Pull(1.0)
    party = party_of(tmp_path, "ward", trainee)
    party.answer(join(tmp_path, travel={"kind": "full", "precision": "int8"}))
    first = said(party, train())
    again = said(party, train(attempt=2))
    assert trainee.fits == [1]
    assert all(torch.equal(first.tensors[name], again.tensors[name]) for name in first.tensors)
    restarted = said(party_of(tmp_path, "ward", trainee), train(attempt=3))
    assert trainee.fits == [1]
    assert torch.equal(first.tensors["encoder.bias"], restarted.tensors["encoder.bias"])


def test_a_stop_in_the_middle_only_trains_again(tmp_path: Path) -> None:
    def stop(_: Orders) -> None:
        raise KeyboardInterrupt

    party = party_of(tmp_path, "ward", Pull(1.0, meanwhile=stop))
    party.answer(join(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        party.answer(train())
    trainee = Pull(1.0)
    answered = party_of(tmp_path, "ward", trainee).answer(train())
    other = party_of(tmp_path / "other", "ward", Pull(1.0))
    other.answer(join(tmp_path))
    assert answered == other.answer(train())
    assert trainee.fits == [1]


def test_a_round_that_is_over_is_refused(tmp_path: Path) -> None:
    trainee = Pull(1.0)
    party = party_of(tmp_path, "ward", trainee)
    party.answer(join(tmp_path))
    party.answer(train(1))
    party.answer(train(2))
    for each in (party, party_of(tmp_path, "ward", trainee)):
        assert fault(each, train(1)) == (
            "ward is asked for round 1 of run run-1, which is over: it is in round 2; "
            "a replay, or a coordinator that was put back to an older copy"
        )
    assert trainee.fits == [1, 2]
    assert said(party, train(2)).kind == "update"


def test_a_round_is_not_trained_from_other_weights(tmp_path: Path) -> None:
    party = party_of(tmp_path, "ward", Pull(1.0))
    party.answer(join(tmp_path))
    party.answer(train(1))
    other = train(1, tensors={name: value + 1 for name, value in start().items()})
    assert "round 1 of run run-1 is asked for again from other weights" in fault(party, other)


def test_another_run_is_refused_until_it_is_joined(tmp_path: Path) -> None:
    trainee = Pull(1.0)
    party = party_of(tmp_path, "ward", trainee)
    assert fault(party, train()).startswith("ward takes part in no run, and is asked for run run-1")
    party.answer(join(tmp_path))
    party.answer(train(3))
    assert "ward takes part in run run-1, and is asked for run run-2" in fault(
        party, train(1, run="run-2")
    )
    party.answer(join(tmp_path, "run-2"))
    assert said(party, train(1, run="run-2")).kind == "update"
    assert "takes part in run run-2" in fault(party, train(3))
    assert "takes part in run run-2" in fault(party_of(tmp_path, "ward", trainee), train(3))
    party.answer(join(tmp_path))  # back in the first run, whose rounds are not forgotten
    assert "is in round 3" in fault(party, train(2))
    assert trainee.fits == [3, 1]


def test_a_request_to_somebody_else_is_refused(tmp_path: Path) -> None:
    party = party_of(tmp_path, "ward", Pull(1.0))
    request = Message("join", "run-1", 0, "lab", {}).pack()
    assert fault(party, request).startswith("a request to 'lab' reached 'ward'")


def test_a_request_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    party = party_of(tmp_path, "ward", Pull(1.0))
    assert fault(party, Message("dump", "run-1", 0, "ward", {}).pack()).startswith(
        "ward is asked to 'dump', and knows join, train, further, end"
    )


@pytest.mark.parametrize(
    "request_",
    [b"", b"nonsense", b"\xff" * 100, Parcel({"kind": "join"}).pack(), Parcel({}).pack()],
)
def test_nonsense_is_answered_with_a_fault(tmp_path: Path, request_: bytes) -> None:
    party = party_of(tmp_path, "ward", Pull(1.0))
    assert "do all parties run the same version?" in fault(party, request_)


@pytest.mark.parametrize("run", ["../../etc", "a/b", "", "-", "x" * 65, ".", "a\nb"])
def test_a_run_is_no_path(tmp_path: Path, run: str) -> None:
    party = party_of(tmp_path, "ward", Pull(1.0))
    before = sorted(tmp_path.rglob("*"))
    assert "without an envelope" in fault(party, join(tmp_path, run))
    assert {path.name for path in set(tmp_path.rglob("*")) - set(before)} == {"errors.log"}


def test_a_request_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    party = party_of(tmp_path, "ward", Pull(1.0), most_bytes=10)
    assert "at most 10 are read" in fault(party, join(tmp_path))


@pytest.mark.parametrize(
    ("limits", "terms", "reason"),
    [
        (
            {"most_epsilon": 2.0},
            {},
            "ward spends at most a privacy of 2, and this federation sets none",
        ),
        ({"most_epsilon": 2.0}, {"privacy": {"epsilon": 4}}, "and this federation asks for 4"),
        (
            {"only_secure": True},
            {},
            "ward takes part only in secure sums, and secure.sums is false",
        ),
        (
            {"least_parties": 4},
            {"secure": {"sums": True, "threshold": 3}},
            "ward takes part only in sums of at least 4 parties, and secure.threshold is 3; "
            "set secure.threshold to at least 4",
        ),
    ],
)
def test_a_party_has_its_limits(tmp_path: Path, limits: Any, terms: Any, reason: str) -> None:
    trainee = Pull(1.0)
    party = party_of(tmp_path, "ward", trainee, **limits)
    kind: dict[str, Any] = {"travel": {"kind": "alternate"}} if terms else {}
    assert reason in fault(party, join(tmp_path, **terms, **kind))
    assert "takes part in no run" in fault(party, train())
    assert trainee.fits == []


def with_company(*names: str) -> bytes:
    orders = Orders("run-1", 1, tuple(sorted(SHAPES)), names, 7)
    return Message("train", "run-1", 1, "ward", {"counted": 0}, start(), orders).pack()


def test_a_round_of_too_few_parties_is_refused(tmp_path: Path) -> None:
    trainee = Pull(1.0)
    party = party_of(tmp_path, "ward", trainee, least_parties=3)
    assert said(party, join(tmp_path)).kind == "description"
    assert fault(party, with_company("bank", "ward")) == (
        "ward takes part only in rounds of at least 3 parties, and this one has 2; wait for more "
        "parties with expected and quorum"
    )
    assert "and this one has 1" in fault(party, with_company("ward", "ward", "ward"))
    assert trainee.fits == []
    assert said(party, with_company("bank", "lab", "ward")).kind == "update"


def test_parties_that_may_leave_a_secret_sum_do_not_count(tmp_path: Path) -> None:
    party = party_of(tmp_path, "ward", Pull(1.0), least_parties=3)
    assert said(party, join(tmp_path, secure={"sums": True})).kind == "description"
    assert fault(party, with_company("bank", "lab", "ward")) == (
        "ward takes part only in rounds of at least 3 parties, and this one has 3, of which 2 may "
        "be left in the sum; wait for more parties with expected and quorum, or raise "
        "secure.threshold"
    )
    assert said(party, with_company("bank", "home", "lab", "ward")).kind == "update"


def test_limits_that_are_kept_do_not_hinder(tmp_path: Path) -> None:
    party = party_of(tmp_path, "ward", Pull(1.0), most_epsilon=4.0, only_secure=True)
    terms: dict[str, Any] = {
        "privacy": {"epsilon": 4},
        "secure": {"sums": True},
        "travel": {"kind": "alternate"},
    }
    assert said(party, join(tmp_path, **terms)).kind == "description"


def test_stricter_limits_hold_after_a_restart(tmp_path: Path) -> None:
    party_of(tmp_path, "ward", Pull(1.0)).answer(join(tmp_path))
    stricter = party_of(tmp_path, "ward", Pull(1.0), only_secure=True)
    assert "takes part only in secure sums" in fault(stricter, train())


def test_another_protocol_is_refused(tmp_path: Path) -> None:
    party = party_of(tmp_path, "ward", Pull(1.0))
    request = Message("join", "run-1", 0, "ward", {"protocol": 99}).pack()
    assert fault(party, request).startswith("the coordinator speaks protocol 99, ward speaks 1")


def test_terms_do_not_change_within_a_run(tmp_path: Path) -> None:
    party = party_of(tmp_path, "ward", Pull(1.0))
    party.answer(join(tmp_path))
    assert "run run-1 was joined with other terms: proximal, seed" in fault(
        party, join(tmp_path, seed=1, proximal=0.1)
    )
    assert said(party, join(tmp_path, rounds=9)).kind == "description"  # it may be longer
    private = {"privacy": {"epsilon": 4}, "travel": {"kind": "alternate"}}
    party.answer(join(tmp_path, "run-2", **private))
    assert "other terms: rounds" in fault(party, join(tmp_path, "run-2", rounds=9, **private))


def test_terms_that_are_none_are_refused(tmp_path: Path) -> None:
    party = party_of(tmp_path, "ward", Pull(1.0))
    content = {"protocol": PROTOCOL, "terms": {"output": "/etc"}, "recipe": RECIPE}
    assert "settings that no party knows: output" in fault(
        party, Message("join", "run-1", 0, "ward", content).pack()
    )
    content["terms"] = {"rounds": 0}
    assert "rounds is 0" in fault(party, Message("join", "run-1", 0, "ward", content).pack())


def test_the_coordinators_own_settings_do_not_travel(tmp_path: Path) -> None:
    assert str(tmp_path).encode() not in join(tmp_path, keys=str(tmp_path / "keys"))


def test_what_is_asked_later_goes_to_the_sealing(tmp_path: Path) -> None:
    class Sealing(PlainSealing):
        def further(self, request: Parcel, orders: Orders) -> Parcel:
            return Parcel({"heard": request.about["word"], "attempt": orders.attempt})

    party = ResidentParty(
        "ward",
        lambda _, __: Pull(1.0),
        lambda _, place: Sealing("float32", place),
        state=tmp_path / "ward",
        limits=Limits(),
    )
    orders = Orders("run-1", 1, ("temperature",), ("ward",), 7, 4)
    further = Message("further", "run-1", 1, "ward", {"word": "shares"}, {}, orders).pack()
    party.answer(join(tmp_path))
    assert "has not trained round 1 of run run-1 yet" in fault(party, further)
    party.answer(train())
    reply = said(party, further)
    assert (reply.kind, reply.content) == ("further", {"heard": "shares", "attempt": 4})
    party.answer(train(2))
    assert "which is over" in fault(party, further)


def test_orders_are_of_the_round(tmp_path: Path) -> None:
    party = party_of(tmp_path, "ward", Pull(1.0))
    party.answer(join(tmp_path))
    assert "without orders of that round" in fault(
        party, Message("train", "run-1", 1, "ward", {}, start()).pack()
    )
    other = Orders("run-1", 2, ("temperature",), ("ward",), 7)
    assert "without orders of that round" in fault(
        party, Message("train", "run-1", 1, "ward", {}, start(), other).pack()
    )


def test_at_the_end_the_party_keeps_the_weights(tmp_path: Path) -> None:
    trainee = Pull(1.0)
    party = party_of(tmp_path, "ward", trainee)
    party.answer(join(tmp_path))
    party.answer(train(1))
    final = {name: value * 2 for name, value in start().items()}
    end = Message("end", "run-1", 1, "ward", {}, final).pack()
    first = party.answer(end)
    assert Message.unpack(first).kind == "kept"
    assert torch.equal(trainee.kept["temperature"], torch.tensor(1.0))
    trainee.kept.clear()
    assert party.answer(end) == first
    assert not trainee.kept


def told(error: Exception) -> Any:
    def raise_it(_: Orders) -> None:
        raise error

    return raise_it


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError(f"cannot embed {CANARY!r}"), "RuntimeError; the party's own log says more"),
        (KeyError(CANARY), "KeyError; the party's own log says more"),
        (
            UsageError(f"no answer in {CANARY}", hint=f"delete {CANARY}"),
            "an error of the kind usage; the party's own log says more",
        ),
    ],
)
def test_no_word_of_a_document_leaves_in_a_fault(
    tmp_path: Path, error: Exception, message: str
) -> None:
    party = party_of(tmp_path, "ward", Pull(1.0, meanwhile=told(error)))
    party.answer(join(tmp_path))
    body = party.answer(train())
    assert CANARY.encode() not in body
    assert "Zylberstein" not in body.decode("utf-8", "replace")
    assert b"\\u" not in body
    reply = Message.unpack(body)
    assert reply.content["message"] == message
    trace = reply.content["traceback"]
    assert "consilience/federation/party.py:" in trace
    assert trace.splitlines()[0] == type(error).__name__
    assert " in raise_it" in trace
    assert str(tmp_path) not in trace
    assert "/" not in trace.splitlines()[-1].split(":")[0]  # a file outside: its name alone
    log = tmp_path / "ward" / "errors.log"
    assert CANARY in log.read_text(encoding="utf-8")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def damaged(place: Path) -> None:
    (place / "privacy.json").write_text("{}", encoding="utf-8")
    Ledger(place / "privacy.json").history()


def held(place: Path) -> None:
    with exclusive(place / "privacy.json.lock", patience=0.0):
        Ledger(place / "privacy.json").spend(
            Spent("run-1", 1, "question", 0.1, 2.0, 1, 1e-3), budget=8.0
        )


def unwritable(place: Path) -> None:
    (place / "state.json").mkdir(exist_ok=True)
    write_whole(place / "state.json", b"")


def unreadable(place: Path) -> None:
    (place / "run.json").write_text("no table", encoding="utf-8")
    read_table(place / "run.json")


def keyless(place: Path) -> None:
    PartyKey.read(place / "party.key")


@pytest.mark.parametrize("mishap", [damaged, held, unwritable, unreadable, keyless])
def test_no_place_of_the_partys_disk_leaves_in_a_fault(
    tmp_path: Path, mishap: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "_PATIENCE", 0.0)
    place = tmp_path / "canary"
    place.mkdir()
    monkeypatch.chdir(place)
    for each in (place, Path()):  # as an absolute path, and as a name alone
        party = party_of(tmp_path, "ward", Pull(1.0, meanwhile=lambda _, each=each: mishap(each)))
        party.answer(join(tmp_path))
        body = party.answer(train())
        assert b"canary" not in body
        assert b".json" not in body
        assert b".key" not in body
        content = Message.unpack(body).content
        assert content["message"].startswith("an error of the kind ")
        assert content["message"].endswith("the party's own log says more")
    log = (tmp_path / "ward" / "errors.log").read_text(encoding="utf-8")
    assert "canary" in log


def test_what_the_ledger_says_without_a_place_is_told(tmp_path: Path) -> None:
    def spend(_: Orders) -> None:
        Ledger(tmp_path / "privacy.json").spend(
            Spent("run-1", 1, "question", 0.5, 0.5, 50, 1e-5), budget=1.0
        )

    party = party_of(tmp_path, "ward", Pull(1.0, meanwhile=spend))
    party.answer(join(tmp_path))
    assert "the run's budget is 1, of which 0.000 is spent" in fault(party, train())


def test_causes_are_named_without_their_words(tmp_path: Path) -> None:
    def nested(_: Orders) -> None:
        try:
            int(CANARY)
        except ValueError as error:
            raise UsageError("a question has no answer", hint="give each line answers") from error

    party = party_of(tmp_path, "ward", Pull(1.0, meanwhile=nested))
    party.answer(join(tmp_path))
    body = party.answer(train())
    assert CANARY.encode() not in body
    content = Message.unpack(body).content
    # Both texts stand in the code word for word, so nothing of anybody's is in them.
    assert content["message"] == "a question has no answer; give each line answers"
    assert [line for line in content["traceback"].splitlines() if line[0] != " "] == [
        "ValueError",
        "UsageError",
    ]


def test_a_fault_is_no_answer_for_good(tmp_path: Path) -> None:
    trainee = Pull(1.0, meanwhile=told(MemoryError()))
    party = party_of(tmp_path, "ward", trainee)
    party.answer(join(tmp_path))
    assert fault(party, train()).startswith("MemoryError")
    trainee.meanwhile = lambda _: None
    assert said(party, train()).kind == "update"


def test_the_log_of_a_party_does_not_grow_for_ever(tmp_path: Path) -> None:
    party = party_of(tmp_path, "ward", Pull(1.0))
    log = tmp_path / "ward" / "errors.log"
    log.write_text("x" * (2**20 + 1))
    party.answer(b"nonsense")
    assert log.stat().st_size < 10_000
    assert log.with_name("errors.old.log").stat().st_size == 2**20 + 1


def test_a_budget_that_is_spent_is_said(tmp_path: Path) -> None:
    party = party_of(tmp_path, "ward", Pull(1.0, budget=1))
    party.answer(join(tmp_path))
    assert said(party, train(1)).kind == "update"
    assert said(party, train(2)).content["spent"] is True
    assert said(party, Message("dump", "run-1", 2, "ward", {}).pack()).content["spent"] is False


def test_everything_on_disk_is_the_owners_alone(tmp_path: Path) -> None:
    party = party_of(tmp_path, "ward", Pull(1.0))
    party.answer(join(tmp_path, travel={"kind": "full", "precision": "int8"}))
    party.answer(train())
    found = list((tmp_path / "ward").rglob("*"))
    assert len(found) >= 6
    for path in (tmp_path / "ward", *found):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_modules_that_may_speak_are_there() -> None:
    from importlib.util import find_spec

    from consilience.federation.faults import _SPEAKING

    assert [name for name in _SPEAKING if find_spec(name) is None] == []


def test_limits_come_from_the_partys_file(tmp_path: Path) -> None:
    from consilience.federation.config import PartyConfig

    config = parse_settings(
        PartyConfig,
        {
            "name": "ward",
            "state": str(tmp_path),
            "most_epsilon": 3,
            "only_secure": True,
            "least_parties": 4,
        },
        source="the test",
    )
    assert Limits.of(config) == Limits(3.0, True, least_parties=4)
