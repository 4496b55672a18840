import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from consilience.encoding.folder import open_folder
from consilience.errors import ConsilienceError, FingerprintError, MissingError, UsageError
from consilience.model import AskOptions, Rag
from consilience.store import Store
from consilience.training import run as running
from consilience.training.aims import OBJECTIVES
from consilience.training.checkpoint import latest_checkpoint, read_checkpoint
from consilience.training.collapse import Retrieved
from consilience.training.learner import Learner
from consilience.training.names import RANKED, TAUGHT
from consilience.training.run import Trained, train
from consilience.training.trainer import load_moving, moving
from tests.training.small import (
    THINGS,
    config_of,
    logged,
    number_of,
    opened_session,
    train_until,
    write_world,
)

ALL_PARTS = ["question_encoder", "passage_encoder", "generator", "temperature"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_world(tmp_path_factory.mktemp("world"))


def weights(folder: Path) -> dict[str, Tensor]:
    return {name: value.float() for name, value in open_folder(folder).tensors().items()}


def moved(world: dict[str, Path], output: Path, *, but: tuple[str, ...] = ()) -> set[str]:
    """The parts of the model whose weights are not what they were; `but` are new."""
    before, after = weights(world["model"]), weights(output / "model")
    untied = {n.replace("retriever.", "questions.", 1): v for n, v in before.items()}
    return {
        name.split(".")[0]
        for name, value in after.items()
        if not name.startswith(but or "-") and not torch.equal(value, (before | untied)[name])
    }


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"train": ["generator"]}, {"reader", "decoder"}),
        ({"train": ["question_encoder"]}, {"questions"}),
        ({"train": ["generator"], "frozen": ["generator.reader"]}, {"decoder"}),
        (
            {"train": ["question_encoder", "generator"], "adapter": {"kind": "lora", "rank": 2}},
            {"questions", "reader", "decoder"},
        ),
        (
            {"train": ALL_PARTS, "refresh": {"mode": "synchronous", "every": 2}},
            {"embeddings", "retriever", "reader", "decoder"},
        ),
        (
            {
                "train": ["passage_encoder"],
                "objectives": {"info_nce": 1},
                "refresh": {"mode": "proposed", "over": 2},
            },
            {"embeddings", "retriever"},
        ),
    ],
    ids=["generator", "question encoder", "frozen", "adapters", "everything", "passage encoder"],
)
def test_exactly_the_parts_that_are_named_move(
    world: dict[str, Path], tmp_path: Path, settings: dict[str, Any], parts: set[str]
) -> None:
    train(config_of(world, tmp_path / "run", **settings))
    assert moved(world, tmp_path / "run") == parts


# What this model cannot learn, or needs a teacher for, has tests of its own.
ALONE = [n for n in OBJECTIVES if n not in {"abstain", "attention_fusion"} | RANKED | TAUGHT]


@pytest.mark.parametrize("name", ALONE)
def test_every_objective_falls_and_moves_what_it_names(
    world: dict[str, Path], tmp_path: Path, name: str
) -> None:
    config = config_of(
        world,
        tmp_path / "run",
        objectives={name: 1},
        k=8,
        steps=40,
        learning_rate=3e-3,
        save_every=40,
    )
    train(config)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").open()]
    losses = [line[f"loss_{name}"] for line in lines if f"loss_{name}" in line]
    assert len(losses) == 40
    # The generator is held fixed under emdr2 and knows nothing, so there is little to gain.
    assert sum(losses[-8:]) < (0.98 if name == "emdr2" else 0.9) * sum(losses[:8])
    only_retriever = {"info_nce", "emdr2", "perplexity", "attention", "leave_one_out"}
    only_generator = {"reader", "fid", "average", "concat"}
    expected = {"questions", "reader", "decoder"}
    expected -= {"reader", "decoder"} if name in only_retriever else set()
    expected -= {"questions"} if name in only_generator else set()
    assert moved(world, tmp_path / "run") == expected


def test_joint_training_learns_to_retrieve_what_only_retrieval_can_answer(
    world: dict[str, Path], tmp_path: Path
) -> None:
    """The answers are the only supervision: no passage is named, none is read for free."""
    config = config_of(
        world,
        tmp_path / "run",
        objectives={"sequence": 1},
        k=8,
        steps=150,
        learning_rate=5e-3,
        save_every=150,
        train=ALL_PARTS,
        refresh={"mode": "synchronous", "every": 50},
    )
    found = train(config)
    rag = Rag.load(tmp_path / "run" / "model")
    with Store.open(tmp_path / "run" / "knowledge", create=False) as store:
        right = 0
        for place, thing in enumerate(THINGS):
            options = AskOptions(k=8, mode="dense", abstain=False)
            answer = rag.ask(f"what is the {thing}", store, options)
            right += answer.text == number_of(place)
            right += answer.citations[0].passage.source == f"{thing}.txt"
        assert store.sequence == found.generation
    assert right >= 14


SETTINGS: dict[str, Any] = {
    "objectives": {"sequence": 1, "info_nce": 0.5},
    "accumulate": 2,
    "batch": 4,
    "save_every": 1,
    "schedule": "cosine",
    "warmup": 2,
    "train": ALL_PARTS,
    "refresh": {"mode": "synchronous", "every": 2},
}


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(
    world: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    whole = train(config_of(world, tmp_path / "whole", **SETTINGS))
    config = config_of(world, tmp_path / "parts", **SETTINGS)
    train_until(config, stop + 1)
    resumed = train(config)
    assert resumed.resumed_from is not None
    assert resumed.resumed_from.endswith(f"checkpoint-{stop}")
    assert same_run(tmp_path / "whole", tmp_path / "parts")
    assert resumed.metrics == whole.metrics


def same_run(one: Path, other: Path) -> bool:
    """Whether two runs ended in the same weights, moments, schedule and log."""
    ends = [latest_checkpoint(run) for run in (one, other)]
    assert all(ends)
    first, second = (read_checkpoint(end) for end in ends if end is not None)
    for mine, theirs in (
        (first.weights, second.weights),
        (first.extra, second.extra),
        (first.random, second.random),
        (weights(one / "model"), weights(other / "model")),
    ):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    for index, moments in first.optimiser["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, second.optimiser["state"][index][name])
    assert first.state == second.state
    logs = [
        [
            {
                k: v
                for k, v in json.loads(line).items()
                if "runtime" not in k and "per_second" not in k
            }
            for line in (run / "log.jsonl").open()
        ]
        for run in (one, other)
    ]
    steps = [[line for line in log if "grad_norm" in line] for log in logs]
    assert steps[0] == steps[1]
    return True


def test_a_killed_process_goes_on_bit_for_bit(world: dict[str, Path], tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); "
        "from tests.training.small import config_of; from consilience.training.run import train; "
        "world = dict(zip(('model', 'store', 'data'), map(pathlib.Path, sys.argv[3:6]))); "
        "train(config_of(world, pathlib.Path(sys.argv[2]), steps=400, save_every=3))"
    )
    root = Path(__file__).parent.parent.parent
    files = [str(world[name]) for name in ("model", "store", "data")]
    command = [sys.executable, "-c", program, str(root), str(tmp_path / "killed"), *files]
    process = subprocess.Popen(command)
    while (latest_checkpoint(tmp_path / "killed") or Path("checkpoint-0")).name < "checkpoint-3":
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    reached = latest_checkpoint(tmp_path / "killed")
    assert reached is not None
    more = read_checkpoint(reached).step + 3
    values = {"steps": more, "save_every": 3}
    resumed = train(config_of(world, tmp_path / "killed", **values))
    train(config_of(world, tmp_path / "whole", **values))
    assert resumed.resumed_from == str(reached)
    assert same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize(("mode", "changes"), [("synchronous", [2, 4]), ("background", [4])])
def test_a_refresh_is_taken_at_once_and_one_in_the_background_at_the_next(
    world: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    changes: list[int],
) -> None:
    searched: list[Tensor] = []
    real = Learner.forward

    def noting(self: Learner, batch: Any) -> Any:
        assert self.index is not None
        searched.append(self.index.vectors.clone())
        return real(self, batch)

    monkeypatch.setattr(Learner, "forward", noting)
    settings = {"train": ALL_PARTS, "refresh": {"mode": mode, "every": 2}, "steps": 5}
    found = train(config_of(world, tmp_path / "run", **settings))
    steps = range(1, 5)
    assert [n for n in steps if not torch.equal(searched[n], searched[n - 1])] == changes
    with Store.open(tmp_path / "run" / "knowledge", create=False) as store:
        assert store.sequence == found.generation
        rag = Rag.load(tmp_path / "run" / "model")
        assert rag.ask("what is the fee", store, AskOptions(mode="dense")).posterior


def test_the_users_store_is_left_alone(world: dict[str, Path], tmp_path: Path) -> None:
    with Store.open(world["store"], create=False) as store:
        before = (store.sequence, store.fingerprint)
    settings = {"train": ALL_PARTS, "refresh": {"mode": "synchronous", "every": 2}}
    train(config_of(world, tmp_path / "run", **settings))
    with Store.open(world["store"], create=False) as store:
        assert (store.sequence, store.fingerprint) == before
        rag = Rag.load(tmp_path / "run" / "model")
        with pytest.raises(FingerprintError):
            rag.ask("what is the fee", store, AskOptions(mode="dense"))


def test_a_question_encoder_that_learned_alone_still_fits_the_store(
    world: dict[str, Path], tmp_path: Path
) -> None:
    train(config_of(world, tmp_path / "run", train=["question_encoder"]))
    rag, start = Rag.load(tmp_path / "run" / "model"), Rag.load(world["model"])
    assert rag.encoder is not None
    assert start.encoder is not None
    assert rag.encoder.fingerprint == start.encoder.fingerprint
    assert (rag.encoder.encode_passages(["a"]) == start.encoder.encode_passages(["a"])).all()
    assert (rag.encoder.encode_questions(["a"]) != start.encoder.encode_questions(["a"])).any()


def with_dev(world: dict[str, Path], folder: Path) -> dict[str, list[str]]:
    """Data whose dev questions are also among those to train on, in other marks."""
    dev = folder / "dev.jsonl"
    lines = [json.loads(line) for line in world["data"].read_text("utf-8").splitlines()]
    asked = [line | {"question": line["question"] + " ?!"} for line in lines[:8]]
    dev.write_text("".join(json.dumps(line) + "\n" for line in asked), encoding="utf-8")
    return {"train": [str(world["data"])], "dev": [str(dev)]}


def test_a_run_without_progress_ends_with_its_best_weights(
    world: dict[str, Path], tmp_path: Path
) -> None:
    values: dict[str, Any] = {
        "data": with_dev(world, tmp_path),
        "evaluate_every": 1,
        "patience": 2,
        "steps": 50,
        "metric": "loss",
        "learning_rate": 3.0,  # far too much: the first measurement is the best
    }
    found = train(config_of(world, tmp_path / "run", **values))
    assert found.steps < 50
    assert found.metrics.keys() == {"eval_loss", "eval_recall@5", "eval_exact_match", "eval_f1"}
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").open()]
    measured = [line["eval_loss"] for line in lines if "eval_loss" in line]
    assert found.metrics["eval_loss"] == pytest.approx(min(measured[:-1]), rel=1e-4)
    assert measured[:-1].index(min(measured[:-1])) == found.steps - 3


def test_questions_that_are_measured_are_not_learned_from(
    world: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    real = Learner.forward

    def noting(self: Learner, batch: Any) -> Any:
        seen.extend(example.question for example in batch)
        return real(self, batch)

    monkeypatch.setattr(Learner, "forward", noting)
    train(config_of(world, tmp_path / "run", data=with_dev(world, tmp_path), steps=8))
    learned = {question for question in seen if "?" not in question}
    assert learned == {f"what is the {thing}" for thing in THINGS[2:]}
    assert "questions" in (tmp_path / "run" / "data.txt").read_text("utf-8")


def test_chunks_give_the_gradients_of_the_whole_batch(
    world: dict[str, Path], tmp_path: Path
) -> None:
    values = {"objectives": {"info_nce": 1}, "train": ["question_encoder"], "steps": 3}
    train(config_of(world, tmp_path / "whole", **values))
    train(config_of(world, tmp_path / "chunks", chunk=3, **values))
    one, other = (weights(tmp_path / run / "model") for run in ("whole", "chunks"))
    for name, value in one.items():
        # The gradient of a key's bias is nothing but rounding, of which Adam makes whole steps.
        if not name.endswith("key.bias"):
            torch.testing.assert_close(value, other[name], atol=2e-4, rtol=1e-3)


def test_chunks_of_batches_that_are_added_up_give_the_gradients_of_the_whole(
    world: dict[str, Path], tmp_path: Path
) -> None:
    """Their length too, which Adam's steps do not show."""
    values = {"objectives": {"info_nce": 1}, "train": ["question_encoder"], "steps": 2}
    values |= {"batch": 4, "accumulate": 2}
    train(config_of(world, tmp_path / "whole", **values))
    train(config_of(world, tmp_path / "chunks", chunk=3, **values))
    for name in ("loss", "grad_norm"):
        one, other = (logged(tmp_path / run, name) for run in ("whole", "chunks"))
        assert one == pytest.approx(other, rel=1e-3), name


def test_activations_computed_twice_change_nothing(world: dict[str, Path], tmp_path: Path) -> None:
    train(config_of(world, tmp_path / "kept"))
    train(config_of(world, tmp_path / "again", checkpointing=True))
    one, other = (weights(tmp_path / run / "model") for run in ("kept", "again"))
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=1e-5, rtol=1e-5)


def test_a_loss_that_is_no_number_stops_with_its_batch_saved(
    world: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = dict(OBJECTIVES) | {"sequence": lambda work: work.model.log_temperature * math.nan}
    monkeypatch.setattr("consilience.training.learner.OBJECTIVES", broken)
    with pytest.raises(UsageError, match="at step 1: the objective sequence is nan") as caught:
        train(config_of(world, tmp_path / "run"))
    path = tmp_path / "run" / "batch-of-step-1.json"
    assert str(path) in caught.value.message
    assert len(json.loads(path.read_text("utf-8"))) == 8


def test_collapse_stops_a_run_that_says_so(
    world: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Learner.forward

    def collapsed(self: Learner, batch: Any) -> Any:
        found = real(self, batch)
        self.retrieved = Retrieved(questions=8, counts={"same": 8}, entropy=0.0)
        return found

    monkeypatch.setattr(Learner, "forward", collapsed)
    config = config_of(world, tmp_path / "run", steps=40, collapse={"action": "stop"})
    with pytest.raises(ConsilienceError, match="retrieval has collapsed"):
        train(config)


class TestWhatCannotBeTrained:
    def test_a_folder_of_another_run(self, world: dict[str, Path], tmp_path: Path) -> None:
        train(config_of(world, tmp_path / "run", steps=1))
        changed = {"k": 2, "batch": 2, "text": {"span": 2.5}, "chunk": None, "decay": 0.01}
        with pytest.raises(UsageError) as caught:
            train(config_of(world, tmp_path / "run", steps=1, **changed))
        assert caught.value.message == (
            f"{tmp_path / 'run'} is of a run with other settings: batch was 8, now 2; k was 3, "
            "now 2; text.span was 3.0, now 2.5"
        )

    def test_a_folder_of_an_earlier_version_goes_on_where_nothing_else_differs(
        self, world: dict[str, Path], tmp_path: Path
    ) -> None:
        train(config_of(world, tmp_path / "run", steps=2))
        path = tmp_path / "run" / "config.json"
        begun = json.loads(path.read_text("utf-8"))
        del begun["ranking"], begun["fsdp"], begun["text"]["span"], begun["prior_rate"]
        path.write_text(json.dumps(begun), "utf-8")
        for added in ({"prior_rate": 0.5}, {"ranking": {"temperature": 2.0}}):
            with pytest.raises(UsageError, match=f"other settings: {next(iter(added))}.* was "):
                train(config_of(world, tmp_path / "run", steps=4, **added))
        assert train(config_of(world, tmp_path / "run", steps=4)).resumed_from is not None
        assert "ranking" in json.loads(path.read_text("utf-8"))

    def test_a_folder_with_a_setting_that_is_none_any_more(
        self, world: dict[str, Path], tmp_path: Path
    ) -> None:
        train(config_of(world, tmp_path / "run", steps=1))
        path = tmp_path / "run" / "config.json"
        begun = json.loads(path.read_text("utf-8"))
        begun["text"]["rotation"] = 3
        path.write_text(json.dumps(begun), "utf-8")
        with pytest.raises(UsageError, match=r"settings: text\.rotation was 3, now none$"):
            train(config_of(world, tmp_path / "run", steps=1))

    def test_a_checkpoint_of_another_model(
        self, world: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        train(config_of(world, tmp_path / "run", steps=1, save_every=1))
        monkeypatch.setattr(running, "_same_settings", lambda _: None)
        with pytest.raises(UsageError, match="is of another model or of other trained parts"):
            train(config_of(world, tmp_path / "run", steps=2, train=["generator"]))

    def test_a_checkpoint_of_other_shapes(self, world: dict[str, Path], tmp_path: Path) -> None:
        session, store = opened_session(config_of(world, tmp_path / "run"))
        with store:
            own = dict(moving(session.learner))
            name = next(name for name, value in own.items() if value.dim() == 2)
            other = own | {name: own[name].detach()[:-1]}
            told = f"another model or of other trained parts: {re.escape(name)}$"
            with pytest.raises(UsageError, match=told):
                load_moving(session.learner, other, source="checkpoint-3")

    def test_a_store_that_is_not_there(self, world: dict[str, Path], tmp_path: Path) -> None:
        with pytest.raises(MissingError):
            train(config_of(world | {"store": tmp_path / "none"}, tmp_path / "run"))

    def test_weights_that_no_name_begins_with(self, world: dict[str, Path], tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"frozen names 'generator\.nose'"):
            train(config_of(world, tmp_path / "run", frozen=["generator.nose"]))

    def test_dropout_of_a_model_that_drops_nothing(
        self, world: dict[str, Path], tmp_path: Path
    ) -> None:
        with pytest.raises(UsageError, match="this model drops nothing anywhere"):
            train(config_of(world, tmp_path / "run", dropout=0.1))

    def test_adapters_that_fit_no_layer(self, world: dict[str, Path], tmp_path: Path) -> None:
        settings = {"kind": "lora", "targets": ["nose"]}
        with pytest.raises(UsageError, match="no layer that learns ends in one of nose"):
            train(config_of(world, tmp_path / "run", adapter=settings))

    def test_data_without_answers(self, world: dict[str, Path], tmp_path: Path) -> None:
        data = tmp_path / "silent.jsonl"
        data.write_text('{"question": "what"}\n')
        with pytest.raises(UsageError, match=r"no question of data\.train can be learned from"):
            train(config_of(world, tmp_path / "run", data={"train": [str(data)]}))

    def test_one_example_is_enough(self, world: dict[str, Path], tmp_path: Path) -> None:
        data = tmp_path / "one.jsonl"
        data.write_text('{"question": "what is the fee", "answers": ["1"]}\n')
        found = train(config_of(world, tmp_path / "run", data={"train": [str(data)]}, steps=2))
        assert isinstance(found, Trained)
        assert found.steps == 2
