import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from consilience.encoding import load_encoder
from consilience.encoding.folder import open_folder
from consilience.errors import FingerprintError, UsageError
from consilience.federation.central import CoordinatorModel
from consilience.federation.config import FederationConfig
from consilience.federation.contracts import Orders, SpentError, Trainee, Update
from consilience.federation.recipe import save_whole
from consilience.federation.trainee import RagTrainee, seed_of
from consilience.federation.travelling import CONTROL
from consilience.model import AskOptions, Rag
from consilience.questions import read_questions
from consilience.store import Store
from consilience.training.aims import OBJECTIVES
from consilience.training.run import train
from tests.federation.small import RECIPE, federation, orders, party, questions_of
from tests.tiny import write_tiny_model
from tests.training.small import THINGS, config_of, write_world

ALL_PARTS = ["question_encoder", "passage_encoder", "generator", "temperature"]
MOVING = {"train": ALL_PARTS, "refresh": {"mode": "synchronous", "every": 2}}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def opened() -> Iterator[list[RagTrainee]]:
    found: list[RagTrainee] = []
    yield found
    for one in found:
        one.close()


def weights(folder: Path) -> dict[str, Tensor]:
    return {name: value.float() for name, value in open_folder(folder).tensors().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(value, other[name]) for name, value in one.items())


def added(start: dict[str, Tensor], update: Update) -> dict[str, Tensor]:
    """The shared weights after a round of one party under FedAvg."""
    return {n: v + update.delta[n] if n in update.delta else v for n, v in start.items()}


def a_round(
    trainee: RagTrainee, config: FederationConfig, round_: int = 1, start: Any = None
) -> tuple[dict[str, Tensor], Update]:
    before = trainee.shared() if start is None else start
    found = trainee.fit(orders(config, before, round_), before)
    return before, found


@pytest.mark.parametrize(
    "recipe", [{}, {"accumulate": 3, "batch": 5}, MOVING], ids=["plain", "accumulated", "refreshed"]
)
def test_one_party_alone_learns_what_central_training_learns(
    world: dict[str, Path],
    tmp_path: Path,
    opened: list[RagTrainee],
    recipe: dict[str, Any],
) -> None:
    steps = 3 if "batch" in recipe else 4
    train(config_of(world, tmp_path / "central", steps=steps, seed=7, **recipe))
    config = federation(tmp_path, seed=7)
    opened.append(trainee := RagTrainee(RECIPE | recipe, party(world, tmp_path), config))
    start, update = a_round(trainee, config)
    assert trainee.settings.seed == 7
    save_whole(trainee.session.rag, tmp_path / "federated")
    assert same(weights(tmp_path / "federated"), weights(tmp_path / "central" / "model"))
    assert update.weight == 32
    for name, value in trainee.shared().items():
        assert torch.equal((start[name].double() + update.delta[name].double()).float(), value)


def test_a_round_of_one_step_is_central_training_to_the_bit(
    world: dict[str, Path], tmp_path: Path, opened: list[RagTrainee]
) -> None:
    whole = {"batch": 32, "decay": 0}
    train(config_of(world, tmp_path / "central", steps=1, **whole))
    config = federation(tmp_path)
    opened.append(trainee := RagTrainee(RECIPE | whole, party(world, tmp_path), config))
    start, update = a_round(trainee, config)
    kept = trainee.keep(added(start, update))
    assert same(weights(Path(kept)), weights(tmp_path / "central" / "model"))
    assert not same(weights(Path(kept)), weights(tmp_path / "central" / "model") | start_of(world))


def start_of(world: dict[str, Path]) -> dict[str, Tensor]:
    return {n: v for n, v in weights(world["model"]).items() if n.startswith("reader")}


def test_it_is_a_trainee(world: dict[str, Path], tmp_path: Path, opened: list[RagTrainee]) -> None:
    config = federation(tmp_path)
    opened.append(found := RagTrainee(RECIPE, party(world, tmp_path), config))
    trainee: Trainee = found
    assert all(len(one) == 32 for one in trainee.describe())


def test_what_is_learned_is_the_partys_own_data(
    world: dict[str, Path], tmp_path: Path, opened: list[RagTrainee]
) -> None:
    config, found = federation(tmp_path), []
    for name, things in (("a", THINGS[:4]), ("b", THINGS[4:]), ("c", THINGS[:4])):
        data = questions_of(world, tmp_path / f"{name}.jsonl", *things)
        opened.append(one := RagTrainee(RECIPE, party(world, tmp_path, name, data=data), config))
        start = one.shared()
        told = Orders("run", 1, tuple(start), (name,), 0)
        found.append(one.fit(told, start))
    assert not same(dict(found[0].delta), dict(found[1].delta))
    assert same(dict(found[0].delta), dict(found[2].delta))
    assert all(bool(value.any()) for value in found[0].delta.values() if value.dim() == 2)


def test_a_round_repeated_is_the_same_and_the_next_is_another(
    world: dict[str, Path], tmp_path: Path, opened: list[RagTrainee]
) -> None:
    config = federation(tmp_path, steps=2)
    opened.append(trainee := RagTrainee(RECIPE, party(world, tmp_path), config))
    start, first = a_round(trainee, config)
    _, again = a_round(trainee, config, start=start)
    _, second = a_round(trainee, config, 2, start)
    assert same(dict(first.delta), dict(again.delta))
    assert not same(dict(first.delta), dict(second.delta))
    assert first.weight == 16
    assert (tmp_path / "a" / "training" / "round-2.jsonl").is_file()


def test_seeds() -> None:
    told = Orders("run", 1, (), ("a", "b"), 5)
    assert seed_of(told, "a") == 5
    later = Orders("run", 2, (), ("a", "b"), 5)
    assert len({seed_of(told, "a"), seed_of(told, "b"), seed_of(later, "a")}) == 3


def test_measured_before_it_learns(
    world: dict[str, Path], tmp_path: Path, opened: list[RagTrainee]
) -> None:
    data = questions_of(world, tmp_path / "train.jsonl", *THINGS[:6])
    dev = questions_of(world, tmp_path / "dev.jsonl", *THINGS[6:])["train"]
    config = federation(tmp_path)
    mine = party(world, tmp_path, data=data | {"dev": dev})
    opened.append(trainee := RagTrainee(RECIPE, mine, config))
    start, update = a_round(trainee, config)
    names = {"loss", "recall@5", "exact_match", "f1"}
    assert update.metrics.keys() == {"loss"} | {f"eval_{name}" for name in names}
    again = a_round(trainee, config, start=start)[1]
    assert again.metrics == update.metrics
    later = a_round(trainee, config, 2, start=added(start, update))[1]
    assert later.metrics["eval_loss"] != update.metrics["eval_loss"]


def test_vectors_follow_the_weights_that_come(
    world: dict[str, Path], tmp_path: Path, opened: list[RagTrainee]
) -> None:
    """The party's own copy is embedded anew, and its store is left alone."""
    config = federation(tmp_path)
    with Store.open(world["store"], create=False) as store:
        before = store.fingerprint
    opened.append(trainee := RagTrainee(RECIPE | MOVING, party(world, tmp_path), config))
    start, update = a_round(trainee, config)
    after = added(start, update)
    kept = trainee.keep(after)
    with Store.open(world["store"], create=False) as store:
        assert store.fingerprint == before
    copy = tmp_path / "a" / "training" / "knowledge"
    with Store.open(copy, create=False) as store:
        assert store.fingerprint == load_encoder(Path(kept)).fingerprint != before
        assert Rag.load(kept).ask("what is the fee", store, AskOptions(mode="dense")).posterior


def test_a_round_begins_with_vectors_of_the_weights_that_came(
    world: dict[str, Path], tmp_path: Path, opened: list[RagTrainee]
) -> None:
    """Where a round embeds nothing anew, its copy of the store has their vectors to the end."""
    config = federation(tmp_path)
    recipe = RECIPE | MOVING | {"refresh": {"mode": "synchronous", "every": 99}}
    opened.append(trainee := RagTrainee(recipe, party(world, tmp_path), config))
    start, update = a_round(trainee, config)
    after = added(start, update)
    a_round(trainee, config, 2, after)
    with Store.open(tmp_path / "a" / "training" / "knowledge", create=False) as store:
        came = store.fingerprint
    assert came == load_encoder(Path(trainee.keep(after))).fingerprint


def test_documents_added_between_rounds_are_retrieved(
    world: dict[str, Path], tmp_path: Path, opened: list[RagTrainee]
) -> None:
    shutil.copytree(world["store"], tmp_path / "store")
    mine = world | {"store": tmp_path / "store"}
    config = federation(tmp_path, steps=1)
    opened.append(trainee := RagTrainee(RECIPE, party(mine, tmp_path), config))
    start, _ = a_round(trainee, config)
    assert trainee.session.index is not None
    before = len(trainee.session.index)
    with Store.open(mine["store"], encoder=load_encoder(world["model"])) as store:
        store.remove("fee.txt")
    a_round(trainee, config, 2, start)
    assert len(trainee.session.index) == before - 1
    with Store.open(mine["store"], create=False) as store:
        store.remove(*(one.source for one in store.sources()))
    with pytest.raises(UsageError, match="holds no passages"):
        a_round(trainee, config, 3, start)


class TestProximal:
    def test_the_pull_is_its_gradient(
        self, world: dict[str, Path], tmp_path: Path, opened: list[RagTrainee]
    ) -> None:
        """Plain steps without a loss but the pull: `w - w0` shrinks by `1 - rate * mu` a step."""
        from consilience.federation.drift import Proximal

        config = federation(tmp_path)
        opened.append(trainee := RagTrainee(RECIPE, party(world, tmp_path), config))
        start, travelling = trainee.shared(), trainee.travelling
        name = next(n for n in start if n.endswith("dense.weight"))
        weight = travelling.shared[name]
        with torch.no_grad():
            weight.add_(0.5)
        pull = Proximal(travelling, [name], start, 0.25)
        pull().backward()
        assert float(pull().detach()) == pytest.approx(0.125 * 0.25 * weight.numel(), rel=1e-5)
        torch.testing.assert_close(weight.grad, torch.full_like(weight, 0.125))

    def test_a_strong_pull_holds_the_weights(
        self, world: dict[str, Path], tmp_path: Path, opened: list[RagTrainee]
    ) -> None:
        lengths = []
        for strength in (0.0, 1e4):
            config = federation(tmp_path, proximal=strength)
            mine = party(world, tmp_path, f"p{strength}")
            opened.append(trainee := RagTrainee(RECIPE | {"clip": 0}, mine, config))
            _, update = a_round(trainee, config)
            lengths.append(sum(float(v.square().sum()) for v in update.delta.values()))
        assert lengths[1] < 0.8 * lengths[0]

    def test_it_is_clipped_with_the_other_gradients(
        self, world: dict[str, Path], tmp_path: Path, opened: list[RagTrainee]
    ) -> None:
        """At the first step `w = w0`: one step is the same with the pull and without."""
        found = []
        for strength in (0.0, 1e4):
            config = federation(tmp_path, proximal=strength, steps=1)
            opened.append(one := RagTrainee(RECIPE, party(world, tmp_path), config))
            found.append(dict(a_round(one, config)[1].delta))
        assert same(*found)


class TestScaffold:
    PLAIN = RECIPE | {"clip": 0, "batch": 32, "learning_rate": 0.1}

    def test_rounds_of_two_steps_by_hand(
        self, world: dict[str, Path], tmp_path: Path, opened: list[RagTrainee]
    ) -> None:
        """y = x - rate * sum(g - c_i + c), and c_i+ = c_i - c + (x - y) / (2 rate)."""
        config = federation(tmp_path, scaffold=True, steps=2)
        opened.append(trainee := RagTrainee(self.PLAIN, party(world, tmp_path), config))
        start = trainee.shared()
        names = [name for name in start if not name.startswith(CONTROL)]
        assert not any(bool(start[CONTROL + name].any()) for name in names)
        own = {name: torch.zeros_like(start[name]) for name in names}
        torch.manual_seed(0)
        for round_ in (1, 2):
            common = {CONTROL + n: torch.randn_like(start[n]) * 1e-3 for n in names}
            weights = {name: start[name].clone() for name in names}
            for _ in range(2):
                gradients = self.gradients(trainee, weights)
                for name in names:
                    weights[name] -= 0.1 * (gradients[name] + common[CONTROL + name] - own[name])
            _, update = a_round(trainee, config, round_, start | common)
            for name in names:
                moved, control = weights[name] - start[name], -common[CONTROL + name]
                delta = update.delta[name].float()
                torch.testing.assert_close(delta, moved, atol=5e-7, rtol=1e-3)
                control = control - delta / 0.2
                found = update.delta[CONTROL + name].float()
                torch.testing.assert_close(found, control, atol=1e-6, rtol=1e-4)
                own[name] += found

    def gradients(self, trainee: RagTrainee, values: dict[str, Tensor]) -> dict[str, Tensor]:
        trainee.travelling.write(values)
        learner = trainee.session.learner
        learner.zero_grad()
        # The first batch of a pool is all there is, in any order.
        learner(sorted(trainee.session.all_examples, key=lambda one: one.length))["loss"].backward()
        found = {
            name: torch.zeros_like(weight) if weight.grad is None else weight.grad.clone()
            for name, weight in trainee.travelling.shared.items()
        }
        learner.zero_grad()
        return found

    def test_its_own_control_is_kept_through_a_restart(
        self, world: dict[str, Path], tmp_path: Path, opened: list[RagTrainee]
    ) -> None:
        config, found = federation(tmp_path, scaffold=True, steps=1), {}
        for place in ("stays", "leaves", "forgets"):
            mine = party(world, tmp_path / place)
            opened.append(trainee := RagTrainee(self.PLAIN, mine, config))
            start, first = a_round(trainee, config)
            if place != "stays":
                trainee.close()
                opened.append(trainee := RagTrainee(self.PLAIN, mine, config))
            if place == "forgets":
                shutil.rmtree(mine.state / "own")
            found[place] = dict(a_round(trainee, config, 2, added(start, first))[1].delta)
        assert same(found["stays"], found["leaves"])
        assert not same(found["stays"], found["forgets"])

    def test_a_coordinator_without_controls(
        self, world: dict[str, Path], tmp_path: Path, opened: list[RagTrainee]
    ) -> None:
        config = federation(tmp_path, scaffold=True)
        opened.append(trainee := RagTrainee(RECIPE, party(world, tmp_path), config))
        start = {n: v for n, v in trainee.shared().items() if not n.startswith(CONTROL)}
        with pytest.raises(UsageError, match="sent no control variates"):
            trainee.fit(orders(config, start), start)


STAYS: dict[str, Any] = {"personal": ["log_temperature"], "kind": "full"}


class TestPersonal:
    def test_it_learns_stays_and_survives(
        self, world: dict[str, Path], tmp_path: Path, opened: list[RagTrainee]
    ) -> None:
        config = federation(tmp_path, **STAYS)
        opened.append(trainee := RagTrainee(RECIPE, party(world, tmp_path), config))
        start, update = a_round(trainee, config)
        assert not any("log_temperature" in name for name in (*start, *update.delta))
        learned = float(trainee.session.rag.model.log_temperature.detach())
        assert learned != float(Rag.load(world["model"]).model.log_temperature.detach())
        described = trainee.describe()
        trainee.close()
        opened.append(again := RagTrainee(RECIPE, party(world, tmp_path), config))
        assert again.describe() == described
        kept = Rag.load(again.keep(start))
        assert float(again.session.rag.model.log_temperature.detach()) == learned
        assert float(kept.model.log_temperature.detach()) == pytest.approx(learned, abs=1e-6)

    def test_a_round_trained_again_begins_from_what_it_began_from(
        self, world: dict[str, Path], tmp_path: Path, opened: list[RagTrainee]
    ) -> None:
        config = federation(tmp_path, **STAYS)
        opened.append(trainee := RagTrainee(RECIPE, party(world, tmp_path), config))
        start, _ = a_round(trainee, config)
        _, second = a_round(trainee, config, 2, start)
        trainee.close()
        opened.append(again := RagTrainee(RECIPE, party(world, tmp_path), config))
        _, repeated = a_round(again, config, 2, start)
        assert same(dict(second.delta), dict(repeated.delta))
        files = sorted(one.name for one in (tmp_path / "a" / "own").iterdir())
        assert files == ["round-1.safetensors", "round-2.safetensors"]
        _, other = a_round(again, config, 3, start)
        assert not same(dict(second.delta), dict(other.delta))
        assert not (tmp_path / "a" / "own" / "round-1.safetensors").exists()


class TestTheCoordinatorsCopy:
    @pytest.mark.parametrize("kind", ["full", "alternate", "frozen-a", "average", "stack"])
    def test_it_begins_as_the_parties_do(
        self, world: dict[str, Path], tmp_path: Path, opened: list[RagTrainee], kind: str
    ) -> None:
        config = federation(tmp_path, kind=kind)
        central = CoordinatorModel(RECIPE | {"model": str(world["model"])}, config)
        opened.append(trainee := RagTrainee(RECIPE, party(world, tmp_path), config))
        assert same(central.shared(), trainee.shared())
        assert central.describe() == trainee.describe()

    def test_it_saves_what_a_party_saves(
        self, world: dict[str, Path], tmp_path: Path, opened: list[RagTrainee]
    ) -> None:
        config = federation(tmp_path, kind="alternate")
        central = CoordinatorModel(RECIPE | {"model": str(world["model"])}, config)
        opened.append(trainee := RagTrainee(RECIPE, party(world, tmp_path), config))
        start = central.shared()
        after = added(start, trainee.fit(orders(config, central.shared()), start))
        kept = central.keep(after)
        assert kept == str(tmp_path / "run" / "model")
        assert same(weights(Path(kept)), weights(Path(trainee.keep(after))))
        assert same(central.shared(), start)
        # Adapters were merged to be saved, and stand beside the same weights as before.
        for one in (central, trainee):
            assert one.travelling.fingerprint() == one.describe()[0]
        assert central.moving(1) == orders(config, start).moving

    def test_another_model_has_another_fingerprint(
        self, world: dict[str, Path], tmp_path: Path, opened: list[RagTrainee]
    ) -> None:
        config = federation(tmp_path, kind="alternate")
        other = write_tiny_model(tmp_path / "other", seed=4)
        one, two = (CoordinatorModel({"model": str(m)}, config) for m in (world["model"], other))
        assert one.describe()[0] != two.describe()[0]
        assert one.describe()[1] == two.describe()[1]


class TestWhatCannotBeTrained:
    def test_names_that_no_weight_has(self, world: dict[str, Path], tmp_path: Path) -> None:
        config = federation(tmp_path, kind="subset", names=["generator.nose"])
        with pytest.raises(UsageError, match=r"travel\.names has 'generator\.nose'") as caught:
            RagTrainee(RECIPE, party(world, tmp_path), config)
        assert "generator.reader" in caught.value.hint

    def test_an_empty_store(self, world: dict[str, Path], tmp_path: Path) -> None:
        with Store.open(tmp_path / "empty", encoder=load_encoder(world["model"])):
            pass
        mine = party(world | {"store": tmp_path / "empty"}, tmp_path)
        with pytest.raises((UsageError, FingerprintError)):
            RagTrainee(RECIPE, mine, federation(tmp_path))

    def test_a_store_of_another_encoder(self, world: dict[str, Path], tmp_path: Path) -> None:
        other = write_tiny_model(tmp_path / "other", seed=4)
        with pytest.raises(FingerprintError):
            RagTrainee(RECIPE, party(world, tmp_path, model=str(other)), federation(tmp_path))

    def test_questions_without_answers(self, world: dict[str, Path], tmp_path: Path) -> None:
        data = tmp_path / "silent.jsonl"
        data.write_text('{"question": "what"}\n')
        mine = party(world, tmp_path, data={"train": [str(data)]})
        with pytest.raises(UsageError, match=r"no question of data\.train can be learned from"):
            RagTrainee(RECIPE, mine, federation(tmp_path))

    def test_neither_questions_nor_documents(self, world: dict[str, Path], tmp_path: Path) -> None:
        mine = party(world, tmp_path, data={}, store="none")
        with pytest.raises(UsageError, match="neither questions nor a knowledge base"):
            RagTrainee(RECIPE, mine, federation(tmp_path))

    def test_a_loss_that_is_no_number(
        self,
        world: dict[str, Path],
        tmp_path: Path,
        opened: list[RagTrainee],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        config = federation(tmp_path)
        opened.append(trainee := RagTrainee(RECIPE, party(world, tmp_path), config))
        broken = dict(OBJECTIVES) | {"sequence": lambda work: work.model.log_temperature * math.nan}
        with monkeypatch.context() as patched:
            patched.setattr("consilience.training.learner.OBJECTIVES", broken)
            with pytest.raises(UsageError, match="at step 1: the objective sequence is nan"):
                a_round(trainee, config)
        # The party is not worn out by it: the next round is trained as if nothing had been.
        assert math.isfinite(a_round(trainee, config, 2)[1].metrics["loss"])

    def test_weights_that_a_last_step_blew_up(
        self, world: dict[str, Path], tmp_path: Path, opened: list[RagTrainee]
    ) -> None:
        config = federation(tmp_path, steps=1, scaffold=True)
        recipe = RECIPE | {"learning_rate": 10, "clip": 0}
        opened.append(trainee := RagTrainee(recipe, party(world, tmp_path), config))
        start = trainee.shared()
        start[f"{CONTROL}log_temperature"] = torch.tensor(3e38)
        with pytest.raises(UsageError, match="the weights are no numbers after this round"):
            trainee.fit(orders(config, start), start)

    def test_weights_of_another_model(
        self, world: dict[str, Path], tmp_path: Path, opened: list[RagTrainee]
    ) -> None:
        config = federation(tmp_path)
        opened.append(trainee := RagTrainee(RECIPE, party(world, tmp_path), config))
        start = trainee.shared() | {"nose": torch.zeros(1)}
        with pytest.raises(UsageError, match="shared weights of another model: nose"):
            trainee.fit(orders(config, trainee.shared()), start)

    @pytest.mark.parametrize(
        ("recipe", "told"),
        [
            ({"vocabulary": {"tokens": 5}, **MOVING}, "vocabulary adds the words"),
            ({"batch": 0}, "batch is 0"),
            ({"objectives": {"distil": 1}, "distil": {"teacher": "shipped"}}, "distil asks"),
        ],
    )
    def test_recipes(
        self, world: dict[str, Path], tmp_path: Path, recipe: dict[str, Any], told: str
    ) -> None:
        with pytest.raises(UsageError, match=told):
            RagTrainee(RECIPE | recipe, party(world, tmp_path), federation(tmp_path))

    def test_a_model_where_the_new_one_goes(self, world: dict[str, Path], tmp_path: Path) -> None:
        mine = party(world, tmp_path, model=str(tmp_path / "a" / "model"))
        with pytest.raises(UsageError, match="the folder that the new model is written to"):
            RagTrainee(RECIPE, mine, federation(tmp_path))


class TestPrivacy:
    def test_a_private_round(
        self, world: dict[str, Path], tmp_path: Path, opened: list[RagTrainee]
    ) -> None:
        config = federation(
            tmp_path,
            kind="alternate",
            personal=["log_temperature"],
            privacy={"epsilon": 8},
            steps=2,
            rounds=2,
        )
        dev = questions_of(world, tmp_path / "dev.jsonl", "bus")["train"]
        mine = party(world, tmp_path, data={"train": [str(world["data"])], "dev": dev})
        opened.append(trainee := RagTrainee(RECIPE, mine, config))
        before = float(trainee.session.rag.model.log_temperature.detach())
        start, update = a_round(trainee, config)
        assert update.epsilon is not None
        assert 0 < update.epsilon <= 8
        assert not any(name.startswith("eval_") for name in update.metrics)
        assert "loss" in update.metrics
        log = (tmp_path / "a" / "training" / "round-1.jsonl").read_text("utf-8")
        assert json.loads(log.splitlines()[0]).keys() >= {"step", "eval_loss", "eval_f1"}
        assert update.delta.keys() == set(orders(config, start).moving)
        assert all(bool(value.any()) for value in update.delta.values())
        assert float(trainee.session.rag.model.log_temperature.detach()) != before
        assert (tmp_path / "a" / "privacy.json").is_file()
        assert a_round(trainee, config, 2)[1].epsilon <= 8  # type: ignore[operator]
        with pytest.raises(SpentError, match="would bring the privacy spent to"):
            a_round(trainee, config, 3)

    def test_what_mixes_questions_is_refused_at_once(
        self, world: dict[str, Path], tmp_path: Path
    ) -> None:
        config = federation(tmp_path, kind="alternate", privacy={"epsilon": 8})
        with pytest.raises(UsageError, match="info_nce: its negatives"):
            RagTrainee(RECIPE | {"objectives": {"info_nce": 1}}, party(world, tmp_path), config)
        with pytest.raises(UsageError, match="encoder_rate is a second rate"):
            RagTrainee(RECIPE | {"encoder_rate": 1e-3}, party(world, tmp_path), config)


def test_a_party_without_questions_makes_its_own(
    world: dict[str, Path], tmp_path: Path, opened: list[RagTrainee]
) -> None:
    config = federation(tmp_path)
    mine = party(world, tmp_path, data={}, made=6)
    opened.append(trainee := RagTrainee(RECIPE, mine, config))
    asked = read_questions(tmp_path / "a" / "questions.jsonl")
    assert len(asked) == 6
    assert [one.question for one in asked] == [one.question for one in trainee.session.all_examples]
    _, update = a_round(trainee, config)
    assert update.weight == 6
    assert any(bool(value.any()) for value in update.delta.values())


def test_mixed_precision_is_not_wrapped_round_by_round(
    world: dict[str, Path], tmp_path: Path, opened: list[RagTrainee]
) -> None:
    config = federation(tmp_path, steps=1)
    recipe = RECIPE | {"precision": "bfloat16"}
    opened.append(trainee := RagTrainee(recipe, party(world, tmp_path), config))
    start, first = a_round(trainee, config)
    assert not hasattr(trainee.session.learner.forward, "__wrapped__")
    assert same(dict(first.delta), dict(a_round(trainee, config, start=start)[1].delta))
    assert all(value.dtype in (torch.float32, torch.float64) for value in first.delta.values())


def test_its_folder_is_its_own(
    world: dict[str, Path], tmp_path: Path, opened: list[RagTrainee]
) -> None:
    config = federation(tmp_path, personal=["log_temperature"])
    opened.append(trainee := RagTrainee(RECIPE, party(world, tmp_path), config))
    a_round(trainee, config)
    state = tmp_path / "a"
    assert state.stat().st_mode & 0o777 == 0o700
    assert (state / "own" / "round-1.safetensors").stat().st_mode & 0o777 == 0o600
    lines = [json.loads(line) for line in (state / "training" / "round-1.jsonl").open()]
    assert sum("grad_norm" in line for line in lines) == 4
