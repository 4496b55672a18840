from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from consilience.encoding.folder import open_folder
from consilience.errors import UsageError
from consilience.federation.config import TravelSettings
from consilience.federation.contracts import Orders, Update
from consilience.federation.payload import multiplied
from consilience.federation.recipe import save_whole
from consilience.federation.trainee import RagTrainee
from consilience.federation.travelling import CONTROL, FIRST, SECOND, Travelling, moving_in
from consilience.model import Rag
from tests.federation.small import RECIPE, federation, orders, party, questions_of
from tests.training.small import THINGS, write_world

ADAPTED = RECIPE | {"adapter": {"kind": "lora", "rank": 2, "alpha": 6}}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_world(tmp_path_factory.mktemp("world"))


def all_weights(trainee: RagTrainee) -> dict[str, Tensor]:
    model = trainee.session.rag.model
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def moved(trainee: RagTrainee, told: Orders) -> tuple[set[str], Update]:
    """The weights that a round changed, and its update."""
    start = trainee.shared()
    before = all_weights(trainee)
    update = trainee.fit(told, start)
    after = all_weights(trainee)
    return {name for name in before if not torch.equal(before[name], after[name])}, update


class TestWhichMoveInARound:
    NAMES = ("q.lora_A.default.weight", "q.lora_B.default.weight", "log_temperature")

    @pytest.mark.parametrize(
        ("kind", "number", "still"),
        [
            ("alternate", 1, "lora_A"),
            ("alternate", 2, "lora_B"),
            ("alternate", 3, "lora_A"),
            ("frozen-a", 1, "lora_A"),
            ("frozen-a", 2, "lora_A"),
            ("average", 1, None),
            ("full", 2, None),
            ("subset", 1, None),
            ("stack", 2, None),
        ],
    )
    def test_kinds(self, kind: str, number: int, still: str | None) -> None:
        names = (*self.NAMES, *(CONTROL + name for name in self.NAMES))
        expected = tuple(name for name in names if still is None or still not in name)
        assert moving_in(kind, number, names) == expected


@pytest.mark.parametrize(
    ("kind", "round_", "settings", "parts"),
    [
        ("alternate", 1, {}, {SECOND, "log_temperature"}),
        ("alternate", 2, {}, {FIRST, "log_temperature"}),
        ("frozen-a", 2, {}, {SECOND, "log_temperature"}),
        ("average", 1, {}, {FIRST, SECOND, "log_temperature"}),
        ("stack", 1, {}, {FIRST, SECOND, "log_temperature"}),
        ("subset", 1, {"names": ["generator.decoder"]}, {"generator.decoder"}),
        (
            "subset",
            1,
            {"names": ["generator.decoder"], "personal": ["log_temp"]},
            {"generator.decoder", "log_temperature"},
        ),
        ("full", 1, {}, {"question_encoder", "generator", "log_temperature"}),
    ],
)
def test_every_kind_moves_what_it_says_and_nothing_else(
    world: dict[str, Path],
    tmp_path: Path,
    kind: str,
    round_: int,
    settings: dict[str, Any],
    parts: set[str],
) -> None:
    config = federation(tmp_path, kind=kind, **settings)
    with RagTrainee(RECIPE, party(world, tmp_path), config) as trainee:
        if round_ == 2 and kind == "alternate":  # the first factor has no gradient while B is zero
            start = trainee.shared()
            update = trainee.fit(orders(config, start), start)
            trainee.travelling.write(start | {n: start[n] + d for n, d in update.delta.items()})
        told = orders(config, trainee.shared(), round_)
        found, update = moved(trainee, told)

    def part(name: str) -> str:
        return next((one for one in parts if one in name.split(".") or name.startswith(one)), name)

    assert {part(name) for name in found} == parts
    plain = {name.removesuffix("//a").removesuffix("//b") for name in update.delta}
    assert plain == set(told.moving)
    # Where a weight turns round, its difference has more digits than float32.
    assert all(value.dtype in (torch.float32, torch.float64) for value in update.delta.values())


def test_delta_is_the_change_of_what_was_ordered(world: dict[str, Path], tmp_path: Path) -> None:
    config = federation(tmp_path)
    with RagTrainee(RECIPE, party(world, tmp_path), config) as trainee:
        names = sorted(trainee.shared())[:2]
        found, update = moved(trainee, Orders("run", 1, tuple(names), ("a",), 0))
        assert update.delta.keys() == found == set(names)
        with pytest.raises(UsageError, match="asked to train nose, which does not travel"):
            trainee.fit(Orders("run", 1, ("nose",), ("a",), 0), trainee.shared())
        with pytest.raises(UsageError, match="asked to train nothing"):
            trainee.fit(Orders("run", 1, (), ("a",), 0), trainee.shared())


def product(weights: dict[str, Tensor], name: str) -> Tensor:
    return weights[name] @ weights[name.replace(SECOND, FIRST)]


def test_alternating_factors_are_averaged_exactly(world: dict[str, Path], tmp_path: Path) -> None:
    """The mean of the parties' products is the product of the factor they share and the mean."""
    config = federation(tmp_path, kind="alternate")
    parties = []
    for name, things in (("a", THINGS[:4]), ("b", THINGS[4:])):
        data = questions_of(world, tmp_path / f"{name}.jsonl", *things)
        parties.append(RagTrainee(ADAPTED, party(world, tmp_path, name, data=data), config))
    shared = parties[0].shared()
    for round_ in (1, 2):
        told = orders(config, shared, round_, ("a", "b"))
        updates = [one.fit(told, shared) for one in parties]
        ends = [
            shared | {n: (shared[n] + delta).float() for n, delta in update.delta.items()}
            for update in updates
        ]
        after = {n: (ends[0][n] + ends[1][n]) / 2 for n in shared}
        for name in (n for n in shared if SECOND in n.split(".")):
            mean = (product(ends[0], name) + product(ends[1], name)) / 2
            torch.testing.assert_close(product(after, name), mean, atol=1e-7, rtol=1e-5)
            assert bool(mean.any())
        shared = after
    for one in parties:
        one.close()


def test_stacked_factors_are_what_the_merged_model_has(
    world: dict[str, Path], tmp_path: Path
) -> None:
    config = federation(tmp_path, kind="stack")
    with RagTrainee(ADAPTED, party(world, tmp_path), config) as trainee:
        start = trainee.shared()
        assert not any(FIRST in name or "base_layer" in name for name in start)
        update = trainee.fit(orders(config, start), start)
        name = next(name for name in update.delta if name.endswith("//a")).removesuffix("//a")
        first, second = update.delta[f"{name}//a"], update.delta[f"{name}//b"]
        assert (first.shape[0], second.shape[1]) == (2, 2)
        save_whole(trainee.session.rag, tmp_path / "merged")
        after = start | {n: start[n] + d for n, d in multiplied(update.delta).items()}
        kept = trainee.keep(after)
        merged, told = (open_folder(Path(p)).tensors() for p in (tmp_path / "merged", kept))
        begun = open_folder(world["model"]).tensors()
        for key, value in merged.items():
            torch.testing.assert_close(value, told[key], atol=1e-6, rtol=1e-5)
        assert not torch.equal(merged[key_of(name)], begun[key_of(name)].float())
        # Saved and still there: the adapters are as they were, on the weight as it was.
        assert torch.equal(trainee.shared()[name], after[name])
        again = trainee.fit(orders(config, start, 2), after).delta
        assert not torch.equal(again[f"{name}//a"], first)


def key_of(name: str) -> str:
    """The name that a weight of the generator has in a model folder."""
    return name.removeprefix("generator.").replace("question_encoder.layers.", "questions.")


def test_first_factors_are_drawn_from_the_seed(world: dict[str, Path], tmp_path: Path) -> None:
    found = []
    for place, seed in enumerate((0, 0, 1)):
        config = federation(tmp_path, kind="average", seed=seed)
        with RagTrainee(ADAPTED, party(world, tmp_path, f"p{place}"), config) as trainee:
            found.append(trainee.shared())
    name = next(one for one in found[0] if FIRST in one.split("."))
    assert torch.equal(found[0][name], found[1][name])
    assert not torch.equal(found[0][name], found[2][name])
    bound = found[0][name].shape[1] ** -0.5
    assert 0.5 * bound < float(found[0][name].abs().max()) <= bound
    assert not any(bool(v.any()) for n, v in found[0].items() if SECOND in n.split("."))


def test_frozen_first_factors_do_not_travel(world: dict[str, Path], tmp_path: Path) -> None:
    seen = []
    for seed in (0, 1):
        config = federation(tmp_path, kind="frozen-a", seed=seed)
        with RagTrainee(ADAPTED, party(world, tmp_path, f"p{seed}"), config) as trainee:
            assert not any(FIRST in name for name in trainee.shared())
            seen.append(trainee.describe()[0])
    assert seen[0] != seen[1]  # with another factor the parties' sums would mean nothing


class TestNames:
    def sorted_(self, world: dict[str, Path], settings: TravelSettings) -> Travelling:
        model = Rag.load(world["model"]).model.float().requires_grad_(True)
        return Travelling(model, settings, seed=0)

    def test_personal_names_that_no_weight_has(self, world: dict[str, Path]) -> None:
        settings = TravelSettings("full", personal=("temperature",))
        with pytest.raises(UsageError, match=r"travel\.personal has 'temperature'") as caught:
            self.sorted_(world, settings)
        assert "log_temperature" in caught.value.hint

    def test_nothing_left(self, world: dict[str, Path]) -> None:
        settings = TravelSettings("full", personal=("",))
        with pytest.raises(UsageError, match="no weight is left to travel"):
            self.sorted_(world, settings)

    def test_a_personal_weight_is_not_shared_by_name(self, world: dict[str, Path]) -> None:
        settings = TravelSettings("subset", ("generator.",), ("generator.decoder",))
        found = self.sorted_(world, settings)
        assert not found.shared.keys() & found.personal.keys()
        assert any(name.startswith("generator.reader") for name in found.shared)
        learning = {n for n, w in found.model.named_parameters() if w.requires_grad}
        assert learning == found.shared.keys() | found.personal.keys()
