import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
import yaml

from consilience.errors import ConsilienceError, MissingError, UsageError
from consilience.federation.assembling import read_recipe, resident, simulate
from consilience.federation.committed import commit
from consilience.federation.config import FederationConfig
from consilience.federation.contracts import Reply, Wait
from consilience.federation.local import LocalParties
from consilience.federation.rounds import Federated
from consilience.model import AskOptions, Rag
from consilience.store import Store
from consilience.training.checkpoint import latest_checkpoint, read_checkpoint
from consilience.training.settings import parse_settings
from tests.federation import small
from tests.training.small import write_world

PATIENT = Wait(quorum=3, grace=0.0, deadline=60.0)


@dataclass
class Echo:
    """Answers with its own name, when it may."""

    name: str
    gate: Event | None = None
    asked: list[bytes] = field(default_factory=list)

    def answer(self, request: bytes) -> bytes:
        self.asked.append(request)
        if self.gate is not None:
            assert self.gate.wait(60)
        return request + self.name.encode()


def bodies(replies: Any) -> dict[str, bytes | None]:
    found: list[Reply] = list(replies)
    assert len({reply.party for reply in found}) == len(found)
    return {reply.party: reply.body for reply in found}


@pytest.fixture(params=[True, False], ids=["at once", "in turn"])
def parties(request: pytest.FixtureRequest) -> Iterator[Callable[..., LocalParties]]:
    made: list[LocalParties] = []

    def make(*each: Echo) -> LocalParties:
        made.append(LocalParties(each, at_once=request.param))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_every_party_answers_for_itself(parties: Callable[..., LocalParties]) -> None:
    way = parties(Echo("b"), Echo("a"), Echo("c"))
    assert way.present() == ["a", "b", "c"]
    requests = {"a": b"1", "c": b"3"}
    assert bodies(way.ask(requests, PATIENT)) == {"a": b"1a", "c": b"3c"}


def test_who_is_not_there_is_said_so(parties: Callable[..., LocalParties]) -> None:
    replies = {reply.party: reply for reply in parties(Echo("a")).ask({"x": b""}, PATIENT)}
    assert (replies["x"].body, replies["x"].error) == (None, "there is no such party")


def test_a_deadline_is_kept_and_the_late_answer_is_nobodys(
    parties: Callable[..., LocalParties],
) -> None:
    gate = Event()
    late = Echo("late", gate)
    way = parties(Echo("a"), late)
    requests = {"a": b"1", "late": b"1"}
    found = {reply.party: reply for reply in way.ask(requests, Wait(2, 0.0, 0.3))}
    assert found["a"].body == b"1a"
    assert (found["late"].body, found["late"].error) == (None, "no reply within 0 s")
    gate.set()
    again = way.ask({"a": b"2", "late": b"2"}, PATIENT)
    assert bodies(again) == {"a": b"2a", "late": b"2late"}
    assert late.asked == [b"1", b"2"]


def test_who_takes_longer_than_the_grace_is_late(parties: Callable[..., LocalParties]) -> None:
    class Slow(Echo):
        def answer(self, request: bytes) -> bytes:
            Event().wait(1.5)
            return request

    way = parties(Echo("a"), Echo("b"), Slow("slow"))
    asked = {"a": b"", "slow": b"", "b": b""}
    found = {reply.party: reply for reply in way.ask(asked, Wait(2, 0.2, 60.0))}
    assert [found[name].body for name in ("a", "b", "slow")] == [b"a", b"b", None]
    assert found["slow"].error.startswith("no reply within")


def test_known_parties_are_expected(tmp_path: Path) -> None:
    from consilience.federation import keys
    from consilience.federation.assembling import _expecting

    keys.make(tmp_path / "keys", hosts=["localhost"], parties=["lab", "ward"])
    plain = {"output": "run", "recipe": "recipe.yaml", "keys": str(tmp_path / "keys")}
    for values, expected in (({}, 2), ({"expected": 1}, 1), ({"keys": None}, None)):
        config = parse_settings(FederationConfig, plain | values, source="the test")
        assert _expecting(config).expected == expected


def test_two_parties_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="two parties have the same name: a, a"):
        LocalParties([Echo("a"), Echo("a")])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_world(tmp_path_factory.mktemp("world"))


def files(world: Mapping[str, Path], folder: Path, *names: str, **own: Any) -> dict[str, Any]:
    """Party files and a recipe in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    halves = {"ward": ("bank", "ward", "card", "exam"), "lab": ("fee", "hours", "visit", "bus")}
    paths = []
    for name in names:
        party = {
            "name": name,
            "state": str(folder / name),
            "store": str(world["store"]),
            "model": str(world["model"]),
            "data": small.questions_of(world, folder / f"{name}.jsonl", *halves[name]),
        } | own.get(name, {})
        paths.append(folder / f"{name}.yaml")
        paths[-1].write_text(yaml.safe_dump(party))
    recipe = {**small.RECIPE, "model": str(world["model"]), "objectives": {"sequence": 1.0}}
    recipe |= {"train": ["question_encoder", "generator"]}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return {"recipe": str(folder / "recipe.yaml"), "parties": [str(path) for path in paths]}


def config(world: Mapping[str, Path], folder: Path, *names: str, **values: Any) -> FederationConfig:
    own = values.pop("own", {})
    plain = {"output": str(folder / "run"), "rounds": 2, "steps": 2}
    found = files(world, folder, *(names or ("lab", "ward")), **own)
    return parse_settings(FederationConfig, {**plain, **found, **values}, source="the test")


def final(found: Federated) -> dict[str, torch.Tensor]:
    place = latest_checkpoint(found.output)
    assert place is not None
    return dict(read_checkpoint(place).weights)


@pytest.fixture(scope="module")
def plain(world: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Federated:
    return simulate(config(world, tmp_path_factory.mktemp("plain")))


def test_a_simulation_trains_a_model_that_answers(world: dict[str, Path], plain: Federated) -> None:
    assert [line.round for line in plain.rounds] == [1, 2]
    assert all(not line.lost for line in plain.rounds), plain.rounds
    start = {name: value for name, value in final(plain).items() if "lora_B" in name}
    assert any(float(value.abs().max()) > 0 for value in start.values())
    with Store.open(world["store"]) as store:
        answer = Rag.load(plain.model).ask("what is the fee", store, options=AskOptions(k=3))
    assert answer.citations is not None
    assert plain.without_model == {}


def test_parties_keep_models_of_their_own(plain: Federated) -> None:
    for name in ("lab", "ward"):
        assert (plain.output.parent / name / "model").is_dir()


def test_a_killed_simulation_ends_where_the_whole_one_does(
    world: dict[str, Path], plain: Federated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StopError(BaseException):
        pass

    settings = config(world, tmp_path)

    def stop(output: Path, committed: Any) -> None:
        if committed.round == 2:
            raise StopError
        commit(output, committed)

    monkeypatch.setattr("consilience.federation.rounds.commit", stop)
    with pytest.raises(StopError):
        simulate(settings)
    monkeypatch.undo()
    found = simulate(settings)
    assert found.resumed_from == 1
    one, other = final(plain), final(found)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_update_is_of_the_partys_own_data(
    world: dict[str, Path], plain: Federated, tmp_path: Path
) -> None:
    same = small.questions_of(world, tmp_path / "same.jsonl", "fee", "hours", "visit", "bus")
    found = simulate(config(world, tmp_path, own={"ward": {"data": same}}))
    one, other = final(plain), final(found)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_secure_sums_come_to_the_plain_average(
    world: dict[str, Path], plain: Federated, tmp_path: Path
) -> None:
    found = simulate(config(world, tmp_path, secure={"sums": True}, rounds=1))
    (line,) = found.rounds
    assert not line.lost
    assert line.parties["lab"].loss is None
    one, other = read_checkpoint(plain.output / "checkpoint-1").weights, final(found)
    assert max(float((one[name] - other[name]).abs().max()) for name in one) < 1e-5


def test_what_a_party_has_spent_counts_in_the_next_run(
    world: dict[str, Path], tmp_path: Path
) -> None:
    own = {"ward": {"most_epsilon": 4.0}}
    values: dict[str, Any] = {"own": own, "privacy": {"epsilon": 4.0}, "rounds": 1}
    first = simulate(config(world, tmp_path, "ward", **values))
    epsilon = first.rounds[0].epsilon
    assert epsilon is not None
    assert 2.0 < epsilon <= 4.0
    again = config(world, tmp_path, "ward", **values, output=str(tmp_path / "second"))
    with pytest.raises(UsageError, match="first round would exceed every budget of privacy: ward"):
        simulate(again)
    assert latest_checkpoint(tmp_path / "second") is None


def test_fewer_bytes_and_products_arrive_as_well(world: dict[str, Path], tmp_path: Path) -> None:
    byte = {"kind": "alternate", "precision": "int8"}
    found = simulate(config(world, tmp_path / "a", travel=byte, rounds=1))
    assert not found.rounds[0].lost
    found = simulate(config(world, tmp_path / "b", travel={"kind": "stack"}, rounds=1))
    assert not found.rounds[0].lost


def test_control_variates_arrive(world: dict[str, Path], tmp_path: Path) -> None:
    found = simulate(config(world, tmp_path, scaffold=True))
    assert all(not line.lost for line in found.rounds), found.rounds
    controls = [value for name, value in final(found).items() if name.startswith("control/")]
    assert any(float(value.abs().max()) > 0 for value in controls)


def test_an_empty_store_takes_no_part(world: dict[str, Path], tmp_path: Path) -> None:
    Store.open(tmp_path / "empty").close()
    own = {"ward": {"store": str(tmp_path / "empty")}}
    found = simulate(config(world, tmp_path, own=own, rounds=1))
    assert set(found.rounds[0].lost) == {"ward"}
    assert set(found.rounds[0].parties) == {"lab", "ward"}


def test_limits_of_a_partys_file_hold(world: dict[str, Path], tmp_path: Path) -> None:
    found = simulate(config(world, tmp_path, own={"ward": {"only_secure": True}}, rounds=1))
    assert "takes part only in secure sums" in found.rounds[0].lost["ward"]


def test_no_word_of_a_question_or_passage_is_in_what_travels(
    world: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[bytes] = []
    real = LocalParties.ask

    def tapped(self: LocalParties, requests: Mapping[str, bytes], wait: Wait) -> Any:
        for reply in real(self, requests, wait):
            said.append(reply.body or b"")
            yield reply

    monkeypatch.setattr(LocalParties, "ask", tapped)
    canary = "zylberstein"
    path = tmp_path / "canary.jsonl"
    path.parent.mkdir(exist_ok=True)
    row = {"question": f"what is the {canary}", "answers": [canary], "positive_ids": [canary]}
    path.write_text(json.dumps(row) + "\n")
    own = {"ward": {"data": {"train": [str(path)]}, "state": str(tmp_path / "ward-state")}}
    simulate(config(world, tmp_path, own=own, rounds=1))
    assert len(said) >= 6
    assert not any(canary.encode() in body for body in said)


def test_what_of_a_recipe_is_each_places_own_is_not_sent(
    world: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []
    real = LocalParties.ask

    def tapped(self: LocalParties, requests: Mapping[str, bytes], wait: Wait) -> Any:
        asked.extend(requests.values())
        return real(self, requests, wait)

    monkeypatch.setattr(LocalParties, "ask", tapped)
    simulate(config(world, tmp_path, rounds=1))
    assert len(asked) >= 6
    for place in (world["model"], tmp_path):
        assert not any(str(place).encode() in body for body in asked)


def test_a_simulation_needs_parties_that_are_apart(world: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="parties names no file"):
        simulate(config(world, tmp_path, parties=[]))
    same = config(world, tmp_path, own={"lab": {"name": "ward"}})
    with pytest.raises(UsageError, match="two parties have the same name: ward"):
        simulate(same)
    same = config(world, tmp_path, own={"lab": {"state": str(tmp_path / "ward")}})
    with pytest.raises(UsageError, match="two parties have the same state"):
        simulate(same)


def test_secure_sums_without_keys_are_refused(world: dict[str, Path], tmp_path: Path) -> None:
    from consilience.federation.assembling import _keys_of

    with pytest.raises(UsageError, match="secure sums need the keys of a, and its file names none"):
        _keys_of(small.party(world, tmp_path))
    assert resident(small.party(world, tmp_path)).name == "a"


@pytest.mark.parametrize(
    ("text", "reason"),
    [("- 1\n- 2\n", "holds list, not settings"), ("a: [", "is not YAML")],
)
def test_a_recipe_that_is_none_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "recipe.yaml"
    with pytest.raises(MissingError, match="no recipe"):
        read_recipe(path)
    path.write_text(text)
    with pytest.raises(ConsilienceError, match=reason):
        read_recipe(path)
