import math
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from consilience.errors import DamagedError, UsageError
from consilience.federation.config import PrivacySettings
from consilience.federation.contracts import SpentError
from consilience.federation.privacy import (
    Ledger,
    PrivateFit,
    PrivateRound,
    private_fit,
    require_private,
)
from consilience.federation.privacy import fitting as fits
from consilience.federation.privacy.accounting import Steps, epsilon_of
from consilience.federation.privacy.clipping import noised
from consilience.federation.privacy.fitting import COUPLED, QUESTION_BY_QUESTION
from consilience.training.aims import OBJECTIVES
from consilience.training.examples import Example
from consilience.training.learner import Learner
from tests.federation.privacy.learners import World, compact, moving_of, opened_world

PRIVACY = PrivacySettings(epsilon=8.0, delta=1e-2)
ROUND = PrivateRound("summer", 1, rounds=2, rate=0.01, batch=4, steps=2)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with opened_world(tmp_path_factory.mktemp("party")) as found:
        yield found


def weights(learner: Learner) -> Tensor:
    return torch.cat([one.detach().flatten().clone() for one in moving_of(learner).values()])


def fit(
    learner: Learner,
    world: World,
    folder: Path,
    *,
    privacy: PrivacySettings = PRIVACY,
    work: PrivateRound = ROUND,
    examples: list[Example] | None = None,
    most: float | None = None,
) -> PrivateFit:
    return private_fit(
        learner,
        world.distinct() if examples is None else examples,
        moving_of(learner),
        privacy=privacy,
        work=work,
        ledger=Ledger(folder / "privacy.json", most=most),
    )


def enough(**_: float) -> float:
    """Noise for any budget here, without a search for less."""
    return 5.0


def without_noise(total: Tensor, *, longest: float, noise: float) -> Tensor:
    return noised(total, longest=longest, noise=0 * noise)


def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise and without sampling, to see what is under them."""
    monkeypatch.setattr(fits, "noise_for", enough)
    monkeypatch.setattr(fits, "sampled", lambda records, _: list(range(records)))
    monkeypatch.setattr(
        fits,
        "noised",
        lambda total, longest, noise: noised(total, longest=longest, noise=0 * noise),
    )


def test_a_round_moves_the_weights_and_tells_what_it_spent(world: World, tmp_path: Path) -> None:
    learner = compact(world)
    before, others = weights(learner), {n: p.clone() for n, p in learner.named_parameters()}
    found = fit(learner, world, tmp_path)
    after = weights(learner)
    assert not torch.equal(before, after)
    assert bool(after.isfinite().all())
    same = {n for n, p in learner.named_parameters() if torch.equal(p, others[n])}
    assert same == others.keys() - moving_of(learner).keys()
    (line,) = Ledger(tmp_path / "privacy.json").history()
    assert (line.run, line.round, line.unit, line.steps) == ("summer", 1, "question", 2)
    assert (line.sampling, line.delta, line.noise) == (0.5, 1e-2, found.noise)
    assert found.epsilon == epsilon_of([Steps(0.5, line.noise, 2)], delta=1e-2)
    assert found.total == found.epsilon
    assert (found.weight, found.steps) == (8.0, 2)
    assert not learner.training  # as it was


def test_all_rounds_of_a_run_come_to_its_budget_and_no_further(
    world: World, tmp_path: Path
) -> None:
    learner = compact(world)
    first = fit(learner, world, tmp_path)
    second = fit(learner, world, tmp_path, work=replace(ROUND, round=2))
    assert second.noise == first.noise
    assert first.epsilon < second.epsilon <= 8.0
    assert second.epsilon > 7.8  # noise is not wasted
    before = weights(learner)
    with pytest.raises(SpentError, match="round 3 of summer would bring the privacy spent"):
        fit(learner, world, tmp_path, work=replace(ROUND, round=3))
    assert torch.equal(weights(learner), before)


def test_a_run_that_is_made_longer_keeps_its_noise(world: World, tmp_path: Path) -> None:
    learner = compact(world)
    first = fit(learner, world, tmp_path)
    longer = replace(ROUND, round=2, rounds=10 * ROUND.rounds)
    assert fit(learner, world, tmp_path, work=longer).noise == first.noise


def test_a_budget_that_the_first_round_exceeds_is_refused_before_training(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fits, "_Training", None)
    with pytest.raises(SpentError, match=r"this party's budget is 0\.5"):
        fit(compact(world), world, tmp_path, most=0.5)
    assert not (tmp_path / "privacy.json").exists()


def test_a_damaged_ledger_stops_a_round(world: World, tmp_path: Path) -> None:
    (tmp_path / "privacy.json").write_text("{")
    learner = compact(world)
    before = weights(learner)
    with pytest.raises(DamagedError, match="privacy ledger"):
        fit(learner, world, tmp_path)
    assert torch.equal(weights(learner), before)


def test_the_round_is_in_the_ledger_before_a_gradient_is_taken(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StopError(BaseException):
        pass

    def stopping(*_: Any) -> Any:
        assert len(Ledger(tmp_path / "privacy.json").history()) == 1
        raise StopError

    monkeypatch.setattr(fits._Training, "summed", stopping)
    learner = compact(world)
    with pytest.raises(StopError):
        fit(learner, world, tmp_path)
    monkeypatch.undo()
    assert fit(learner, world, tmp_path).epsilon > 0
    assert len(Ledger(tmp_path / "privacy.json").history()) == 2  # spent twice


def test_without_noise_and_clipping_it_is_gradient_descent(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent(monkeypatch)
    learner, plain = compact(world), compact(world)
    questions = world.distinct()
    work = replace(ROUND, steps=1, batch=8, optimiser="sgd")
    found = fit(
        learner,
        world,
        tmp_path,
        work=work,
        examples=questions,
        privacy=replace(PRIVACY, longest=1e3),
    )
    loss = plain.train()(questions)["loss"]
    loss.backward()
    optimiser = torch.optim.SGD(moving_of(plain).values(), lr=work.rate)
    optimiser.step()
    assert torch.allclose(weights(learner), weights(plain), atol=1e-6)
    assert found.metrics["loss"] == pytest.approx(loss.item(), rel=1e-4)


def test_no_record_moves_the_weights_by_more_than_its_part(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neighbours: one record less, here of four questions. Without noise the sums are seen."""
    silent(monkeypatch)
    work = replace(ROUND, steps=1, batch=4, optimiser="sgd", rate=1.0)
    privacy = replace(PRIVACY, longest=0.5)
    moved = []
    for examples in (world.examples, world.examples[4:]):
        learner = compact(world)
        before = weights(learner)
        fit(learner, world, tmp_path, work=work, examples=examples, privacy=privacy)
        moved.append(4 * (weights(learner) - before))
    length = float((moved[0] - moved[1]).norm())
    assert 0.3 < length <= 0.5 * (1 + 1e-5)


def test_an_empty_sample_takes_a_step_of_noise(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fits, "sampled", lambda *_: [])
    learner = compact(world)
    before = weights(learner)
    work = replace(ROUND, steps=1, optimiser="sgd", rate=1.0)
    found = fit(learner, world, tmp_path, work=work)
    moved = weights(learner) - before
    # The sum's noise has deviation z C, the mean's is divided by the four that were expected.
    assert float(moved.std()) == pytest.approx(found.noise / 4, rel=0.1)
    assert math.isfinite(found.metrics["loss"])


def test_the_seed_of_the_run_does_not_determine_the_round(world: World, tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        learner = compact(world)
        torch.manual_seed(0)
        random.seed(0)
        fit(learner, world, tmp_path / name)
        found.append(weights(learner))
    assert not torch.equal(*found)


def test_the_loss_that_is_told_is_noised_as_it_says(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fits, "noise_for", enough)
    monkeypatch.setattr(fits._Training, "step", lambda *_: None)  # the weights stay
    work = replace(ROUND, steps=10, batch=8, rounds=1)
    told = fit(compact(world), world, tmp_path, work=work).metrics
    monkeypatch.undo()
    silent(monkeypatch)
    exact = fit(compact(world), world, tmp_path / "x", work=replace(work, steps=1)).metrics
    assert set(told) == {"loss", "loss_noise"}
    assert told["loss"] != pytest.approx(exact["loss"], abs=1e-6)
    assert abs(told["loss"] - exact["loss"]) < 4 * told["loss_noise"]


def test_steps_and_weight_follow_from_the_coarse_number_of_records(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fits, "noise_for", enough)
    monkeypatch.setattr(fits._Training, "summed", lambda self, *_: self.none)
    examples = [replace(world.examples[0], question=f"what is {i}") for i in range(17)]
    learner = compact(world)
    monkeypatch.setattr(
        fits._Training, "none", torch.zeros(weights(learner).numel() + 1), raising=False
    )
    work = replace(ROUND, steps=None, rounds=1)
    found = fit(learner, world, tmp_path, work=work, examples=examples)
    assert (found.weight, found.steps) == (18.0, 5)
    (line,) = Ledger(tmp_path / "privacy.json").history()
    assert line.sampling == 4 / 18


def test_the_pull_of_fedprox_is_added_after_the_noise(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fits, "noise_for", enough)
    monkeypatch.setattr(fits, "sampled", lambda *_: [])
    pushes = iter([torch.full((1_000_000,), 4.0).double(), torch.zeros(1_000_000).double()])
    monkeypatch.setattr(fits, "noised", lambda total, **_: next(pushes)[: total.numel()])
    learner = compact(world)
    before = weights(learner)
    work = replace(ROUND, optimiser="sgd", rate=0.5, proximal=0.5)
    fit(learner, world, tmp_path, work=work)
    # First half of minus one, of which a quarter comes back.
    assert torch.allclose(weights(learner) - before, torch.tensor(-0.375), atol=1e-5)


def test_every_objective_is_said_to_mix_questions_or_not() -> None:
    assert QUESTION_BY_QUESTION | COUPLED.keys() == set(OBJECTIVES)
    assert not QUESTION_BY_QUESTION & COUPLED.keys()


def test_objectives_that_mix_questions_are_refused(world: World) -> None:
    learner = compact(world, sequence=1.0, info_nce=0.5)
    with pytest.raises(
        UsageError, match="none of info_nce: its negatives are the passages of other"
    ):
        require_private(learner, world.examples, PRIVACY)
    off = compact(world, sequence=1.0, info_nce=0.0)
    assert len(require_private(off, world.examples, PRIVACY)) == 8


def test_batch_normalisation_is_refused(world: World) -> None:
    learner = compact(world)
    learner.add_module("odd", nn.BatchNorm1d(3))
    with pytest.raises(UsageError, match="batch normalisation mixes"):
        require_private(learner, world.examples, PRIVACY)


def test_vectors_renewed_where_questions_look_are_refused(world: World) -> None:
    learner = compact(world)
    learner.options = replace(learner.options, over=3)
    with pytest.raises(UsageError, match=r"refresh\.mode proposed renews the vectors"):
        require_private(learner, world.examples, PRIVACY)


def test_private_training_without_a_budget_is_refused(world: World) -> None:
    with pytest.raises(UsageError, match="needs a budget"):
        require_private(compact(world), world.examples, PrivacySettings())


def test_users_are_the_records_where_they_are_the_unit(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fits, "noise_for", enough)
    examples = [replace(one, user=f"user-{i % 5}") for i, one in enumerate(world.examples)]
    privacy = replace(PRIVACY, unit="user")
    found = fit(compact(world), world, tmp_path, privacy=privacy, examples=examples[:10])
    assert found.weight == 5.0
    with pytest.raises(UsageError, match="name no user"):
        fit(compact(world), world, tmp_path, privacy=privacy)
