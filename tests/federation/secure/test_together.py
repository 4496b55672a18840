"""Resident parties, their coordinator and secure sums, as a federation runs them."""

from collections.abc import Callable
from pathlib import Path

import torch

from consilience.federation.combining import PlainGathering
from consilience.federation.contracts import Gathering, Party
from consilience.federation.journal import read_standing
from consilience.federation.local import LocalParties
from consilience.federation.messages import Message
from consilience.federation.party import ResidentParty
from consilience.federation.rounds import REPEATS, Coordinator, Federated
from consilience.federation.secure import Roster, SecureGathering, SecureSealing, new_party_key
from consilience.federation.terms import Limits
from tests.federation.fakes import RECIPE, Bent, Pull, Start, config_of, party_of

GOALS = {"bank": 0.4, "lab": 0.5, "ward": 0.7}
"""Near the weights that a run begins with, so that nothing is cut off."""

QUESTIONS = {"bank": 10.0, "lab": 25.0, "ward": 40.0}


def trainees() -> dict[str, Pull]:
    return {name: Pull(goal, QUESTIONS[name]) for name, goal in GOALS.items()}


def secure_parties(folder: Path, known: dict[str, Pull]) -> list[ResidentParty]:
    keys = {name: new_party_key() for name in known}
    roster = Roster({name: key.public for name, key in keys.items()})

    def resident(name: str) -> ResidentParty:
        return ResidentParty(
            name,
            lambda _, __: known[name],
            lambda config, place: SecureSealing(name, keys[name], roster, place, config.secure),
            state=folder / name,
            limits=Limits(only_secure=True),
        )

    return [resident(name) for name in sorted(known)]


def run(
    folder: Path, parties: list[Party], gathering: Callable[..., Gathering], **values: object
) -> tuple[Federated, dict[str, torch.Tensor]]:
    config, model, way = config_of(folder, **values), Start(), LocalParties(parties)
    try:
        coordinator = Coordinator(
            config, RECIPE, parties=way, model=model, gathering=gathering(config)
        )
        found = coordinator.run()
    finally:
        way.close()
    return found, model.saved[-1]


def secure_run(folder: Path, parties: list[Party], **values: object) -> tuple:
    sums = {"secure": {"sums": True}, **values}
    return run(folder, parties, lambda config: SecureGathering(config.secure), **sums)


def test_three_rounds_come_to_what_they_come_to_in_the_clear(tmp_path: Path) -> None:
    plain = [party_of(tmp_path / "plain", name, each) for name, each in trainees().items()]
    _, expected = run(tmp_path / "plain", plain, PlainGathering)
    found, weights = secure_run(
        tmp_path / "secure", secure_parties(tmp_path / "secure", trainees())
    )
    assert len(found.rounds) == 3
    for name, value in expected.items():
        assert torch.allclose(weights[name], value, rtol=0, atol=1e-5)
        assert not torch.equal(value, Start().shared()[name])


def test_a_party_without_a_key_is_not_let_in(tmp_path: Path) -> None:
    known = trainees()
    keyless = party_of(tmp_path / "plain", "ward", known.pop("ward"))
    found, _ = secure_run(
        tmp_path, [*secure_parties(tmp_path, known), keyless], rounds=1, expected=3
    )
    assert found.rounds[0].lost == {"ward": "it has no key for secure sums"}


def test_only_the_budget_is_known_of_what_each_party_spent(tmp_path: Path) -> None:
    known = {name: Pull(goal, QUESTIONS[name], budget=9) for name, goal in GOALS.items()}
    private = {"privacy": {"epsilon": 4.0}, "travel": {"kind": "alternate"}}
    found, _ = secure_run(tmp_path, secure_parties(tmp_path, known), rounds=2, **private)
    assert [line.epsilon for line in found.rounds] == [4.0, 4.0]
    assert all(part.epsilon is None for line in found.rounds for part in line.parties.values())
    standing = read_standing(tmp_path / "run")
    assert (standing.epsilon, standing.budget, standing.secure) == (4.0, 4.0, True)


def silent(kind: str, party: Party, *, times: int) -> Bent:
    """A party whose first replies of a kind say that it failed."""
    left = [times]

    def bend(request: bytes, reply: bytes) -> bytes:
        asked = Message.unpack(request)
        if asked.kind != kind or not left[0]:
            return reply
        left[0] -= 1
        told = {"message": "out of reach", "traceback": ""}
        return Message("fault", asked.run, asked.round, asked.party, told).pack()

    return Bent(party, bend)


def test_one_that_falls_silent_in_the_second_message_still_counts(tmp_path: Path) -> None:
    known = trainees()
    parties: list[Party] = [*secure_parties(tmp_path, known)]
    parties[1] = silent("further", parties[1], times=1)
    found, _ = secure_run(tmp_path, parties, rounds=1)
    assert found.rounds[0].attempts == 1
    assert known["lab"].fits == [1]


def test_who_is_not_heard_is_asked_once_more_before_the_round_is_begun_again(
    tmp_path: Path,
) -> None:
    parties: list[Party] = [
        silent("further", party, times=1) for party in secure_parties(tmp_path, trainees())
    ]
    found, _ = secure_run(tmp_path, parties, rounds=1)
    assert found.rounds[0].attempts == 1


def test_a_round_that_nobody_told_of_is_begun_again_without_training_again(tmp_path: Path) -> None:
    known = trainees()
    parties: list[Party] = [
        silent("further", party, times=2) for party in secure_parties(tmp_path, known)
    ]
    found, _ = secure_run(tmp_path, parties, rounds=1)
    assert found.rounds[0].attempts == 2
    assert [each.fits for each in known.values()] == [[1], [1], [1]]


def test_a_round_that_too_few_can_tell_of_is_given_up(tmp_path: Path) -> None:
    parties: list[Party] = [
        silent("further", party, times=99) for party in secure_parties(tmp_path, trainees())
    ]
    found, _ = secure_run(tmp_path, parties, rounds=1)
    (line,) = found.rounds
    assert (line.metrics, line.attempts) == ({}, 1 + REPEATS)
