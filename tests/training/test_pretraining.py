"""Learning from plain text through `consilience train`: what moves, what falls, what is refused."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import yaml
from safetensors.torch import load_file

from consilience.cli.main import run
from consilience.documents import Document
from consilience.encoding import load_encoder
from consilience.encoding.folder import open_folder
from consilience.errors import MissingError, UsageError
from consilience.model import Rag
from consilience.store import Store
from consilience.training.aims import OBJECTIVES
from consilience.training.checkpoint import latest_checkpoint, read_checkpoint
from consilience.training.config import TrainConfig
from consilience.training.learner import Learner
from consilience.training.names import PLAIN, RANKED, ObjectiveName
from consilience.training.run import train
from consilience.training.settings import parse_settings
from consilience.training.text_aims import TEXT_OBJECTIVES
from tests.training.plain import write_texts
from tests.training.small import train_until, write_world
from tests.training.test_run import moved, same_run

ENCODER, GENERATOR = {"embeddings", "retriever"}, {"reader", "decoder"}
MOVES: dict[str, set[str]] = {
    "inverse_cloze": ENCODER,
    "crops": ENCODER,
    "mlm": ENCODER,
    "nsp": ENCODER,
    "span_corruption": GENERATOR,
    "continuation": GENERATOR,
    "recurring_spans": GENERATOR,
    "salient_spans": GENERATOR,
}
FALLS: dict[str, float] = {
    "inverse_cloze": 1.0,
    "crops": 1.95,  # log 8 is 2.08
    "mlm": 4.5,
    "nsp": 0.5,  # log 2 is 0.69
    "span_corruption": 3.5,
    "continuation": 3.7,
    "recurring_spans": 4.0,
    "salient_spans": 4.5,
}
"""What the loss of each is below after sixty steps."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("world")
    return write_world(folder) | {"texts": write_texts(folder / "texts")}


def settings(world: dict[str, Path], output: Path, **values: Any) -> dict[str, Any]:
    return {
        "output": str(output),
        "model": str(world["model"]),
        "text": {"train": [str(world["texts"])]},
        "train": ["question_encoder", "passage_encoder", "generator"],
        "steps": 4,
        "batch": 8,
        "learning_rate": 3e-3,
        "warmup": 0,
        "schedule": "constant",
        "log_every": 1,
        "save_every": 100,
        "report_to": [],
        **values,
    }


def command(folder: Path, values: dict[str, Any], *flags: str) -> list[str]:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return ["train", str(path), *flags]


def losses(output: Path, name: str) -> list[float]:
    lines = [json.loads(line) for line in (output / "log.jsonl").open(encoding="utf-8")]
    return [line[f"loss_{name}"] for line in lines if f"loss_{name}" in line]


def two_languages(folder: Path) -> str:
    place = folder / "texts"
    place.mkdir()
    (place / "en.txt").write_text("The fee is 3. The ward is 4. The bus is 5. The card is 6.")
    (place / "zh.txt").write_text(
        "银行在中国。医院在这里。门诊有人。考试费用是多少？", encoding="utf-8"
    )
    return str(place)


def test_every_objective_that_a_config_can_name_is_there() -> None:
    assert set(OBJECTIVES) | set(TEXT_OBJECTIVES) == set(get_args(ObjectiveName))
    assert set(TEXT_OBJECTIVES) == PLAIN
    assert set(OBJECTIVES) >= RANKED


@pytest.mark.parametrize("name", sorted(MOVES))
def test_an_objective_moves_what_it_teaches_and_falls(
    world: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    values = settings(world, tmp_path / "run", objectives={name: 1}, steps=60)
    if name == "nsp":  # two documents that are told apart at a glance
        values |= {"text": {"train": [two_languages(tmp_path)]}, "learning_rate": 1e-2}
    if MOVES[name] == GENERATOR:  # else the embeddings, which it shares, may move, too
        values["train"] = ["question_encoder", "generator"]
    assert run(command(tmp_path, values, "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    found = losses(tmp_path / "run", name)
    assert (told["steps"], len(found)) == (60, 60)
    assert sum(found[-8:]) / 8 < FALLS[name] < sum(found[:3]) / 3
    assert moved(world, tmp_path / "run") == MOVES[name]


MIXED: dict[str, Any] = {
    "objectives": {"mlm": 1, "nsp": 0.5, "crops": 1, "span_corruption": 1, "sequence": 1},
    "refresh": {"mode": "synchronous", "every": 3},
    "batch": 5,
    "save_every": 1,
    "steps": 6,
    "k": 2,
}


def mixed(world: dict[str, Path], output: Path, **values: Any) -> TrainConfig:
    """Questions and texts in one run, which ends in its second epoch."""
    data = output.parent / "few.jsonl"
    lines = world["data"].read_text("utf-8").splitlines(keepends=True)
    data.write_text("".join(lines[::4]), encoding="utf-8")
    told = {"data": {"train": [str(data)], "temperature": 1}, "store": str(world["store"])}
    found = settings(world, output, **told, **(MIXED | values))
    return parse_settings(TrainConfig, found, source="test")


@pytest.mark.parametrize("stop", [2, 4])
def test_a_run_over_texts_that_was_stopped_goes_on_bit_for_bit(
    world: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    train(mixed(world, tmp_path / "whole"))
    train_until(mixed(world, tmp_path / "parts"), stop + 1)
    resumed = train(mixed(world, tmp_path / "parts"))
    assert str(resumed.resumed_from).endswith(f"checkpoint-{stop}")
    assert same_run(tmp_path / "whole", tmp_path / "parts")
    whole, parts = (load_file(tmp_path / run / "heads.safetensors") for run in ("whole", "parts"))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())
    for name in MIXED["objectives"]:
        assert losses(tmp_path / "whole", name), name


def test_a_text_asks_something_else_in_every_epoch(
    world: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int]] = []
    real = Learner.forward

    def noting(self: Learner, batch: Any) -> Any:
        seen.extend((one.plain.text, one.plain.draw) for one in batch)
        return real(self, batch)

    monkeypatch.setattr(Learner, "forward", noting)
    values = settings(world, tmp_path / "run", objectives={"mlm": 1}, batch=4, steps=4)
    train(parse_settings(TrainConfig, values, source="test"))
    first, second = seen[:8], seen[8:]
    assert {text for text, _ in first} == {text for text, _ in second}
    assert len({draw for _, draw in seen}) == 16


class TestHeldOutText:
    def test_its_loss_is_measured_and_chooses_the_best_weights(
        self, world: dict[str, Path], tmp_path: Path
    ) -> None:
        values = settings(world, tmp_path / "run", objectives={"mlm": 1, "continuation": 2})
        values["text"] |= {"dev": [str(world["texts"] / "0.txt")]}
        values |= {"evaluate_every": 1, "patience": 2, "steps": 30, "learning_rate": 3.0}
        told: list[str] = []
        found = train(parse_settings(TrainConfig, values, source="test"), say=told.append)
        assert found.steps < 30
        names = {"eval_loss", "eval_loss_mlm", "eval_loss_continuation"}
        assert found.metrics.keys() == names
        sum_of_both = found.metrics["eval_loss_mlm"] + 2 * found.metrics["eval_loss_continuation"]
        assert found.metrics["eval_loss"] == pytest.approx(sum_of_both)
        lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").open()]
        measured = [line["eval_loss"] for line in lines if "eval_loss" in line]
        # The weights of the best step are put back and measured again: the same is asked.
        assert found.metrics["eval_loss"] == pytest.approx(min(measured[:-1]), rel=1e-4)
        assert "text.train: 7 documents, " in told[0]
        assert "text.dev: 1 documents, " in told[0]
        assert "also stand in text.dev, and are left out: 1" in told[0]

    def test_a_share_of_the_documents(self, world: dict[str, Path], tmp_path: Path) -> None:
        values = settings(world, tmp_path / "run", objectives={"continuation": 1}, steps=1)
        values["text"] |= {"hold_out": 0.5}
        told: list[str] = []
        train(parse_settings(TrainConfig, values, source="test"), say=told.append)
        counts = [int(line.split()[1]) for line in told[0].splitlines() if "documents" in line]
        assert sum(counts) == 8
        assert min(counts) > 0
        assert (tmp_path / "run" / "data.txt").read_text("utf-8") == told[0] + "\n"


class TestHeads:
    def test_are_kept_beside_the_model(self, world: dict[str, Path], tmp_path: Path) -> None:
        told: list[str] = []
        values = settings(world, tmp_path / "run", objectives={"mlm": 1, "nsp": 1})
        train(
            parse_settings(TrainConfig, values | {"save_every": 4}, source="test"), say=told.append
        )
        kept = load_file(tmp_path / "run" / "heads.safetensors")
        assert {name.rpartition(".")[0] for name in kept} == {
            "passage_encoder-mlm",
            "passage_encoder-mlm.dense",
            "passage_encoder-mlm.norm",
            "passage_encoder-nsp.dense",
        }
        end = latest_checkpoint(tmp_path / "run")
        assert end is not None
        for name, value in read_checkpoint(end).weights.items():
            if name.startswith("heads."):
                assert torch.equal(kept[name.removeprefix("heads.")], value)
        assert "the heads of mlm, nsp are in" in told[-1]
        assert not [n for n in open_folder(tmp_path / "run" / "model").tensors() if "nsp" in n]

    def test_are_dropped_with_a_word(self, world: dict[str, Path], tmp_path: Path) -> None:
        told: list[str] = []
        values = settings(world, tmp_path / "run", objectives={"nsp": 1})
        values["text"] |= {"heads": "drop"}
        train(parse_settings(TrainConfig, values, source="test"), say=told.append)
        assert told[-1] == "the heads of nsp are dropped: the model has no place for them"
        assert not (tmp_path / "run" / "heads.safetensors").exists()


def test_only_the_question_encoder_learns_from_text(world: dict[str, Path], tmp_path: Path) -> None:
    values = settings(world, tmp_path / "run", objectives={"mlm": 1, "crops": 1})
    values["train"] = ["question_encoder"]
    train(parse_settings(TrainConfig, values, source="test"))
    assert moved(world, tmp_path / "run") == {"questions"}


def test_chunks_of_pairs_give_the_gradients_of_the_whole_batch(
    world: dict[str, Path], tmp_path: Path
) -> None:
    found = []
    for name, chunk in (("whole", None), ("chunks", 3)):
        values = settings(world, tmp_path / name, objectives={"crops": 1}, chunk=chunk, steps=1)
        train(parse_settings(TrainConfig, values, source="test"))
        line = json.loads((tmp_path / name / "log.jsonl").read_text("utf-8").splitlines()[0])
        found.append([line["loss_crops"], line["grad_norm"]])
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert found[0][1] > 0.01


def test_new_words_come_from_the_text(world: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("zebra zebra zebra crossing crossing\n" * 3)
    values = settings(world, tmp_path / "run", objectives={"mlm": 1}, steps=1)
    values |= {"text": {"train": [str(tmp_path)]}, "vocabulary": {"tokens": 2}}
    told: list[str] = []
    train(parse_settings(TrainConfig, values, source="test"), say=told.append)
    assert any("2 new words, among them crossing, zebra" in line for line in told)


class TestWhereTextComesFrom:
    def test_a_store(self, world: dict[str, Path], tmp_path: Path) -> None:
        place = tmp_path / "store"
        with Store.open(place, encoder=load_encoder(world["model"])) as store:
            for path in sorted(world["texts"].iterdir()):
                store.add(Document(path.read_text("utf-8"), source=path.name))
        values = settings(world, tmp_path / "run", objectives={"crops": 1})
        values["text"] = {"train": [str(place)]}
        told: list[str] = []
        train(parse_settings(TrainConfig, values, source="test"), say=told.append)
        assert told[0].startswith("text.train: 8 documents")

    def test_lines_of_json(self, world: dict[str, Path], tmp_path: Path) -> None:
        lines = [{"text": f"The fee is {n}. The bus is {n}.", "language": "zh"} for n in range(9)]
        path = tmp_path / "texts.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        values = settings(world, tmp_path / "run", objectives={"nsp": 1, "salient_spans": 1})
        values["text"] = {"train": [str(path)]}
        told: list[str] = []
        train(parse_settings(TrainConfig, values, source="test"), say=told.append)
        assert told[0].splitlines()[0] == (
            "text.train: 9 documents, 243 characters, 9 passages (Chinese 100.0%)"
        )


class TestOddText:
    def test_text_longer_than_every_window(self, world: dict[str, Path], tmp_path: Path) -> None:
        """A passage of rare words is spelled letter by letter, far beyond 512 positions."""
        sentences = [f"Xylophonic quizzically jabberwocky {n}." for n in range(80)]
        for name in ("a", "b"):
            (tmp_path / f"{name}.txt").write_text(f"Text {name}. " + " ".join(sentences))
        every = dict.fromkeys(MOVES, 1)
        values = settings(world, tmp_path / "run", objectives=every, steps=2, batch=4)
        values["text"] = {"train": [str(tmp_path)]}
        found = train(parse_settings(TrainConfig, values, source="test"))
        assert found.steps == 2
        for name in MOVES:
            assert losses(tmp_path / "run", name), name

    def test_one_document(self, world: dict[str, Path], tmp_path: Path) -> None:
        values = settings(world, tmp_path / "run", objectives={"mlm": 1, "continuation": 1})
        values |= {"text": {"train": [str(world["texts"] / "1.txt")]}, "steps": 2, "batch": 1}
        assert train(parse_settings(TrainConfig, values, source="test")).steps == 2

    def test_one_document_has_no_sentence_of_another(
        self, world: dict[str, Path], tmp_path: Path
    ) -> None:
        values = settings(world, tmp_path / "run", objectives={"mlm": 1, "nsp": 1})
        values["text"] = {"train": [str(world["texts"] / "1.txt")]}
        with pytest.raises(UsageError, match="holds nothing that nsp could learn from"):
            train(parse_settings(TrainConfig, values, source="test"))

    def test_text_without_what_is_asked_for(self, world: dict[str, Path], tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("nothing of note is here\n")
        objectives = {"recurring_spans": 1, "salient_spans": 1, "continuation": 1}
        values = settings(world, tmp_path / "run", objectives=objectives)
        values["text"] = {"train": [str(tmp_path / "a.txt")]}
        message = "holds nothing that recurring_spans, salient_spans could learn from"
        with pytest.raises(UsageError, match=message):
            train(parse_settings(TrainConfig, values, source="test"))

    def test_a_batch_in_which_nothing_can_be_learned_moves_nothing(
        self, world: dict[str, Path], tmp_path: Path
    ) -> None:
        (tmp_path / "a.txt").write_text("nothing of note is here\n")
        (tmp_path / "b.txt").write_text("In 1912 nothing of note was here.\n")
        values = settings(world, tmp_path / "run", objectives={"salient_spans": 1}, batch=1)
        values |= {"text": {"train": [str(tmp_path)]}, "steps": 2}
        assert train(parse_settings(TrainConfig, values, source="test")).steps == 2
        assert len(losses(tmp_path / "run", "salient_spans")) in (1, 2)

    @pytest.mark.parametrize("content", ["", " \n\n "])
    def test_empty_text(
        self,
        world: dict[str, Path],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        content: str,
    ) -> None:
        (tmp_path / "texts").mkdir()
        (tmp_path / "texts" / "a.txt").write_text(content)
        values = settings(world, tmp_path / "run", objectives={"mlm": 1})
        values["text"] = {"train": [str(tmp_path / "texts")]}
        assert run(command(tmp_path, values, "--json")) == 2
        message = json.loads(capsys.readouterr().out)["error"]["message"]
        assert message == f"{tmp_path / 'texts'} holds no text"

    def test_text_that_is_not_there(self, world: dict[str, Path], tmp_path: Path) -> None:
        values = settings(world, tmp_path / "run", objectives={"mlm": 1})
        values["text"] = {"train": [str(tmp_path / "none")]}
        with pytest.raises(MissingError, match="no text at") as caught:
            train(parse_settings(TrainConfig, values, source="test"))
        assert "check text.train" in str(caught.value.hint)

    def test_all_of_it_is_held_out(self, world: dict[str, Path], tmp_path: Path) -> None:
        values = settings(world, tmp_path / "run", objectives={"mlm": 1})
        values["text"] |= {"dev": [str(world["texts"])]}
        with pytest.raises(UsageError, match=r"nothing of text\.train is left to learn from"):
            train(parse_settings(TrainConfig, values, source="test"))


def test_every_mistake_about_text_is_told_at_once(
    world: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {
        "output": str(tmp_path / "run"),
        "objectives": {"mlm": 1, "continuation": 1, "crops": 1, "kl": 1},
        "train": ["temperature"],
        "data": {"negatives": 0},
        "batch": 1,
        "chunk": 2,
    }
    assert run(command(tmp_path, values, "--json")) == 2
    message = json.loads(capsys.readouterr().out)["error"]["message"]
    for part in (
        "objectives continuation, crops, mlm learn from plain text, but text.train names none",
        "objectives crops, mlm teach an encoder, but train names none",
        "objectives continuation teach the generator, but train does not name it",
        "objectives crops tell texts apart, but batch is 1",
        "data.train names no file",
        "objectives kl learn a ranking, but ranking.teacher is none",
        "objectives kl rank passages, but store is none",
        "objectives kl compare passages, but data.negatives is 0",
        "chunk is for one of crops, info_nce, inverse_cloze alone, in float32",
    ):
        assert part in message


def test_text_and_data_that_nobody_learns_from(tmp_path: Path) -> None:
    values: dict[str, Any] = {"output": "x", "text": {"hold_out": 0.1}, "data": {"train": "a"}}
    values |= {"store": "s", "ranking": {"teacher": "generator"}}
    with pytest.raises(UsageError) as caught:
        parse_settings(TrainConfig, values, source="x")
    assert "text is given, but no objective of" in caught.value.message
    assert "ranking.teacher teaches nothing" in caught.value.message
    values = {"output": "x", "text": {"train": "t"}, "data": {"train": "a"}}
    values |= {"objectives": {"continuation": 1}}
    with pytest.raises(UsageError, match=r"data\.train is given, but no objective learns from"):
        parse_settings(TrainConfig, values, source="x")
    values |= {"data": {}, "evaluate_every": 1, "metric": "f1", "text": {"train": "t", "dev": "d"}}
    with pytest.raises(UsageError, match="metric is f1, but plain text has a loss only"):
        parse_settings(TrainConfig, values, source="x")


def test_the_trained_model_answers(world: dict[str, Path], tmp_path: Path) -> None:
    train(mixed(world, tmp_path / "run", steps=2))
    with Store.open(tmp_path / "run" / "knowledge", create=False) as store:
        assert Rag.load(tmp_path / "run" / "model").ask("what is the fee", store).posterior
