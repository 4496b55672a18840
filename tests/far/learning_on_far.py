"""What learns the same on another device; run by `tests/model/test_far.py`."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState

from consilience import Rag, Store
from consilience.compat.transformers import RagRetriever
from consilience.questions import read_questions
from consilience.training.aims import OBJECTIVES
from consilience.training.run import train
from consilience.training.session import Session
from tests.compat.test_scripts import passages
from tests.compat.tiny_rag import QUESTIONS, batch, pair, rag_config, tokenizer
from tests.far.device import NAME, moved, near, register
from tests.training.small import config_of, logged, write_world

FAR = register()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize("fusion", ["token", "sequence"])
@pytest.mark.parametrize("kind", ["bart", "t5", "bert2gpt2"])
def test_the_face_of_transformers(fusion: str, kind: str) -> None:
    _, here = pair(fusion, rag_config(kind))
    _, there = pair(fusion, rag_config(kind))
    there.to(FAR)
    inputs = batch(here.config, answers=[[7, 8], [9, 6]])
    far_inputs = moved(inputs, FAR)
    expected, found = here(**inputs, output_retrieved=True), there(**far_inputs)
    torch.testing.assert_close(near(found.loss), expected.loss, atol=1e-5, rtol=1e-4)
    found.loss.mean().backward()
    for given in (inputs, far_inputs):
        given.pop("labels")
    for options in ({}, {"num_beams": 3, "num_return_sequences": 2}):
        options = {**options, "return_dict_in_generate": True}
        written = there.generate(**far_inputs, **options)
        expected = here.generate(**inputs, **options)
        assert near(written.sequences).tolist() == expected.sequences.tolist()
        for name in ("sequences_scores", "doc_posteriors"):
            torch.testing.assert_close(near(written[name]), expected[name], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("fusion", ["token", "sequence"])
def test_the_face_of_transformers_retrieves(fusion: str) -> None:
    found = []
    for device in (torch.device("cpu"), FAR):
        _, model = pair(fusion, rag_config())
        reading = (tokenizer("bert"), tokenizer("bart"))
        model.set_retriever(RagRetriever(model.config, *reading, passages=passages()))
        model.to(device)
        asked: Any = tokenizer("bert")(QUESTIONS, padding=True, return_tensors="pt")
        inputs = moved({name: asked[name] for name in ("input_ids", "attention_mask")}, device)
        labels = torch.tensor([[2, 7, 8, 2], [2, 9, 2, 1]], device=device)
        output = model(**inputs, labels=labels)
        output.loss.mean().backward()
        written = model.generate(**inputs, num_beams=2)
        assert {written.device, output.doc_scores.device} == {device}
        found.append((output.loss.cpu(), output.doc_scores.cpu(), written.cpu()))
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=1e-4)


BOTH = ["question_encoder", "passage_encoder", "generator"]
RUNS: list[dict[str, Any]] = [
    {"objectives": {"sequence": 1, "info_nce": 1}, "accumulate": 2},
    {"objectives": {"token": 1}, "adapter": {"kind": "lora"}},
    {"objectives": {"sequence": 1}, "train": BOTH, "refresh": {"mode": "proposed", "every": 2}},
    {"objectives": {"sequence": 1}, "train": BOTH, "refresh": {"mode": "synchronous", "every": 3}},
    {"objectives": {"info_nce": 1}, "chunk": 4},
    {"objectives": {"sequence": 1}, "checkpointing": True, "smoothing": 0.1},
]


def run_of(world: dict[str, Path], output: Path, settings: dict[str, Any]) -> list[float]:
    """The losses of a run."""
    train(config_of(world, output, **settings))
    return logged(output, "loss")


@pytest.mark.parametrize("settings", RUNS, ids=str)
def test_a_run_of_training(
    world: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
) -> None:
    expected = run_of(world, tmp_path / "cpu", settings)
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", NAME)
    PartialState._reset_state()
    assert PartialState().device.type == NAME
    assert run_of(world, tmp_path / "far", settings) == pytest.approx(expected, abs=1e-3)
    PartialState._reset_state()


# Some need a layer or a teacher that this world does not have.
ABSENT = {"attention_fusion", "distil", "distil_posterior", "distil_states", "kl", "margin_mse"}


@pytest.mark.parametrize("name", sorted(OBJECTIVES.keys() - ABSENT))
def test_objectives(world: dict[str, Path], name: str) -> None:
    losses = []
    for device in (torch.device("cpu"), FAR):
        train = ["question_encoder", "generator", *(["ranks"] if name == "average" else [])]
        config = config_of(world, Path("unused"), objectives={name: 1}, train=train)
        with Store.open(world["store"], encoder=Rag.load(world["model"]).encoder) as store:
            session = Session(config, store, [read_questions(world["data"])], [])
            session.learner.eval().to(device)
            output = session.learner(session.examples[0][:4])
            output["loss"].backward()
        losses.append(output["loss"])
    torch.testing.assert_close(near(losses[1]), losses[0], atol=1e-5, rtol=1e-4)
