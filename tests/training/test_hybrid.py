"""The share between words and vectors, and the temperature, learned from answers alone."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from consilience.documents import Document
from consilience.encoding import load_encoder
from consilience.encoding.folder import ModelConfig, open_folder, write_folder
from consilience.errors import UsageError
from consilience.model import Rag
from consilience.questions import read_questions
from consilience.retrieval import HybridWeights
from consilience.retrieval.hybrid import fuse
from consilience.retrieval.tuning import Tuning
from consilience.store import Store
from consilience.training import hybrid
from consilience.training.hybrid import LearnedShares, fused, united
from consilience.training.run import train
from consilience.training.work import Work
from tests.tiny import tiny_tensors, tiny_tokenizer
from tests.training.small import THINGS, config_of, number_of, opened_session, train_until
from tests.training.test_run import moved, same_run

K = 3


def write_model(path: Path, **settings: Any) -> Path:
    """The tiny model, with other settings of the sum."""
    words = tiny_tokenizer()
    sizes = {"hidden_size": 16, "heads": 2, "intermediate_size": 32}
    layers = {"encoder_layers": 2, "decoder_layers": 2}
    config = ModelConfig(vocabulary_size=len(words), **sizes, **layers, **settings)
    write_folder(path, config, tiny_tensors(config, 3), words.to_json())
    return path


class Pointed:
    """The encoder of a model, whose vector of a passage is that of the question it is to answer."""

    def __init__(self, model: Path, question_of: dict[str, str]) -> None:
        self.plain = load_encoder(model)
        self.fingerprint, self.dimension = self.plain.fingerprint, self.plain.dimension
        self.question_of = question_of

    def encode_passages(self, passages: Sequence[str]) -> Any:
        return self.plain.encode_questions([self.question_of[text] for text in passages])

    def encode_questions(self, questions: Sequence[str]) -> Any:
        return self.plain.encode_questions(questions)


def asked_of(place: int) -> str:
    return f"{THINGS[place]}"


def write_world(folder: Path, *, right: str, start: float) -> dict[str, Path]:
    """Passages `fee 3`, questions `fee`: the one half finds the passage, the other its neighbour's.

    Args:
        folder: Where.
        right: Which half finds it: words, or vectors.
        start: The share that the model begins with.
    """
    shares = {"zh": 0.0, "en": start, "other": 0.4}
    model = write_model(folder / "start", prior_temperature=0.5, hybrid_weights=shares)
    size = len(THINGS)
    texts = [f"{THINGS[place]} {number_of(place)}" for place in range(size)]
    answers = {place: place if right == "words" else (place + 1) % size for place in range(size)}
    nearest = {place: (place + 1) % size for place in range(size)}
    question_of = {texts[nearest[place]]: asked_of(place) for place in range(size)}
    with Store.open(folder / "store", encoder=Pointed(model, question_of)) as store:
        for place, text in enumerate(texts):
            store.add(Document(text, source=f"{THINGS[place]}.txt", title=""))
    lines = [
        json.dumps({"question": asked_of(place), "answers": [number_of(answers[place])]})
        for place in range(size)
    ]
    data = folder / "train.jsonl"
    data.write_text("".join(f"{line}\n" for line in lines * 4), encoding="utf-8")
    return {"model": model, "store": folder / "store", "data": data}


LEARNING: dict[str, Any] = {
    "mode": "hybrid",
    "train": ["hybrid_weights", "temperature"],
    "k": K,
    "steps": 60,
    "save_every": 60,
    "prior_rate": 0.02,
}


def first_ones(model: Path, store: Path, data: Path) -> float:
    """How often hybrid search puts a passage with the answer first."""
    rag = Rag.load(model)
    questions = read_questions(data)[: len(THINGS)]
    with Store.open(store, create=False) as opened:
        retriever = rag.retriever(opened, "hybrid")
        hits = [retriever.search(one.question, k=1)[0] for one in questions]
    right = [h.passage.text.split()[1] in q.answers for h, q in zip(hits, questions, strict=True)]
    return float(np.mean(right))


@pytest.mark.parametrize(
    ("right", "start", "low", "high"), [("words", 0.8, 0.0, 0.4), ("vectors", 0.2, 0.6, 1.0)]
)
def test_the_share_moves_to_the_half_that_helps(
    tmp_path: Path, right: str, start: float, low: float, high: float
) -> None:
    world = write_world(tmp_path, right=right, start=start)
    train(config_of(world, tmp_path / "run", **LEARNING))
    model = tmp_path / "run" / "model"
    learned = open_folder(model).config
    assert low <= learned.hybrid_weights["en"] <= high
    before = first_ones(world["model"], world["store"], world["data"])
    after = first_ones(model, world["store"], world["data"])
    assert before <= 0.25
    assert after == 1.0
    # Languages that nobody asked in are as they were, to the last digit.
    assert (learned.hybrid_weights["zh"], learned.hybrid_weights["other"]) == (0.0, 0.4)
    assert learned.prior_temperature != pytest.approx(0.5, abs=0.001)
    assert moved(world, tmp_path / "run") == set()
    logs = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").open()]
    shares = [log["share_en"] for log in logs if "share_en" in log]
    assert len(shares) == 60
    assert shares[-1] == pytest.approx(learned.hybrid_weights["en"], abs=0.02)
    assert logs[-2]["temperature"] == pytest.approx(learned.prior_temperature, abs=0.02)


def test_recall_is_that_of_hybrid_search(tmp_path: Path) -> None:
    world = write_world(tmp_path, right="words", start=0.0)
    dev = tmp_path / "dev.jsonl"
    dev.write_text(json.dumps({"question": "card ?!", "answers": ["7"]}) + "\n", encoding="utf-8")
    values = LEARNING | {"data": {"train": [str(world["data"])], "dev": [str(dev)]}}
    session, store = opened_session(config_of(world, tmp_path / "run", **values))
    with store:
        assert session.measurement is not None
        assert session.measurement()["recall@5"] == 1.0
        work = Work(session.learner, session.dev)
        assert session.index is not None
        (found,) = session.index.passages(work.found(1)[:, 0].tolist())
    assert found.text == "card 7"


@pytest.mark.parametrize("objective", ["sequence", "token", "emdr2", "perplexity"])
def test_the_gradient_is_that_of_finite_differences(tmp_path: Path, objective: str) -> None:
    world = write_world(tmp_path, right="words", start=0.37)
    config = config_of(world, tmp_path / "run", **LEARNING | {"objectives": {objective: 1}})
    session, store = opened_session(config)
    with store:
        learner, batch = session.learner.eval(), session.examples[0][:8]
        assert learner.shares is not None
        numbers = {"en": learner.shares.get_parameter("en")}
        if objective != "perplexity":  # which has a temperature of its own
            numbers["temperature"] = learner.model.log_temperature

        def loss() -> torch.Tensor:
            value: torch.Tensor = learner(batch)["loss"]
            return value

        loss().backward()
        for name, number in numbers.items():
            step, at = 3e-3, float(number.detach())
            values = []
            for moved_to in (at + step, at - step):
                number.data.fill_(moved_to)
                values.append(float(loss().detach()))
            number.data.fill_(at)
            slope = (values[0] - values[1]) / (2 * step)
            assert number.grad is not None
            assert abs(slope) > 1e-4, name
            assert float(number.grad) == pytest.approx(slope, rel=0.03, abs=1e-4), name


def test_the_prior_is_that_of_the_search(tmp_path: Path) -> None:
    world = write_world(tmp_path, right="words", start=0.37)
    session, store = opened_session(config_of(world, tmp_path / "run", **LEARNING))
    with store:
        batch = session.examples[0][:8]
        work = Work(session.learner, batch)
        scores = work.scores.detach()
        retriever = session.rag.retriever(store, "hybrid")
        for row, example in enumerate(batch):
            hits = retriever.search(example.question, k=K)
            assert scores[row].tolist() == pytest.approx([hit.score for hit in hits], abs=2e-3)


SETTINGS: dict[str, Any] = {
    "mode": "hybrid",
    "train": ["question_encoder", "generator", "temperature", "hybrid_weights"],
    "objectives": {"sequence": 1, "leave_one_out": 0.5},
    "accumulate": 2,
    "batch": 4,
    "save_every": 1,
    "schedule": "cosine",
    "warmup": 2,
}


def test_a_run_that_was_stopped_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = write_world(tmp_path, right="words", start=0.6)
    whole = train(config_of(world, tmp_path / "whole", **SETTINGS))
    config = config_of(world, tmp_path / "parts", **SETTINGS)
    train_until(config, 4)
    resumed = train(config)
    assert resumed.resumed_from is not None
    assert resumed.metrics == whole.metrics
    assert same_run(tmp_path / "whole", tmp_path / "parts")
    ends = [open_folder(tmp_path / run / "model").config for run in ("whole", "parts")]
    assert ends[0] == ends[1]
    assert ends[0].hybrid_weights["en"] != 0.6


def test_a_share_that_is_not_named_does_not_move(tmp_path: Path) -> None:
    world = write_world(tmp_path, right="words", start=0.8)
    train(config_of(world, tmp_path / "run", mode="hybrid", train=["generator", "temperature"]))
    config = open_folder(tmp_path / "run" / "model").config
    assert config.hybrid_weights == {"zh": 0.0, "en": 0.8, "other": 0.4}


def test_a_temperature_that_is_not_named_does_not_move(tmp_path: Path) -> None:
    world = write_world(tmp_path, right="words", start=0.8)
    train(config_of(world, tmp_path / "run", **LEARNING | {"train": ["hybrid_weights"]}))
    config = open_folder(tmp_path / "run" / "model").config
    assert config.prior_temperature == pytest.approx(0.5, abs=1e-6)
    assert config.hybrid_weights["en"] < 0.8


def test_it_learns_while_the_passages_vectors_move(tmp_path: Path) -> None:
    world = write_world(tmp_path, right="words", start=0.8)
    everything = ["question_encoder", "passage_encoder", "hybrid_weights"]
    settings = LEARNING | {"train": everything, "refresh": {"mode": "synchronous", "every": 2}}
    train(config_of(world, tmp_path / "run", **settings | {"steps": 4, "save_every": 2}))
    assert moved(world, tmp_path / "run") == {"embeddings", "retriever"}
    learned = open_folder(tmp_path / "run" / "model").config.hybrid_weights["en"]
    assert learned != 0.8


def test_numbers_that_a_store_keeps_are_told(tmp_path: Path) -> None:
    world = write_world(tmp_path, right="words", start=0.8)
    with Store.open(world["store"], create=False) as store:
        Tuning(en=0.3).keep(store)
    said: list[str] = []
    train(config_of(world, tmp_path / "run", **LEARNING | {"steps": 1}), say=said.append)
    assert said[-1] == (
        "the store keeps en as measured on it, and is searched with these and not with what is "
        "learned"
    )


class TestShares:
    def test_a_step_out_of_the_range_is_taken_back(self) -> None:
        shares = LearnedShares(HybridWeights(zh=0.0, en=1.0, other=0.5))
        with torch.no_grad():
            shares.get_parameter("en").add_(0.3)
            shares.get_parameter("zh").sub_(0.2)
        assert shares(["how much", "多少钱", "?"]).tolist() == [[1.0], [0.0], [0.5]]
        shares(["how much"]).sum().backward()
        grads = [shares.get_parameter(name).grad for name in ("zh", "en", "other")]
        assert [float(one) for one in grads if one is not None] == [0.0, 1.0, 0.0]
        assert shares.weights == HybridWeights(zh=0.0, en=1.0, other=0.5)

    def test_what_did_not_move_is_spelled_as_it_was(self) -> None:
        shares = LearnedShares(HybridWeights(zh=0.0, en=0.4, other=0.1))
        with torch.no_grad():
            shares.get_parameter("other").add_(0.2)
        assert shares.weights == HybridWeights(zh=0.0, en=0.4, other=0.3)


def test_candidates_are_those_of_both_halves_and_score_as_a_search_does() -> None:
    words = [{3: 2.0, 1: 5.0}, {}]
    nearest = torch.tensor([[1, 0, 4], [2, -1, -1]])
    halves = united(words, nearest, least=5)
    assert halves.places.tolist() == [[0, 1, 3, 4, -1], [2, -1, -1, -1, -1]]
    products = torch.tensor([[0.2, 0.9, 7.0, 0.1, 7.0], [0.5, 7.0, 7.0, 7.0, 7.0]])
    scores = fused(halves, products, torch.tensor([[0.25], [0.25]]))
    wanted = dict(fuse([(1, 5.0), (3, 2.0)], [(1, 0.9), (0, 0.2), (4, 0.1)], share=0.25))
    assert scores[0, :4].tolist() == pytest.approx([wanted[n] for n in (0, 1, 3, 4)])
    assert scores[0, 4] == scores[1, 1] == float("-inf")
    assert hybrid.best(scores, 2).tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"mode": "dense"}, "hybrid_weights is in train, but mode is dense"),
        (
            {"objectives": {"fid": 1}},
            "hybrid_weights is in train, but no objective of attention, emdr2, leave_one_out, "
            "perplexity, sequence, token",
        ),
        (
            {
                "train": ["passage_encoder", "hybrid_weights"],
                "refresh": {"mode": "proposed", "over": 2},
            },
            "hybrid_weights is in train, but refresh.mode proposed ranks by vectors alone",
        ),
        (
            {"distil": {"teacher": "shipped"}, "objectives": {"distil": 1, "sequence": 1}},
            "hybrid_weights is in train, but passages are those of distil.teacher",
        ),
    ],
)
def test_what_does_not_go_with_it(tmp_path: Path, values: dict[str, Any], told: str) -> None:
    world = {name: tmp_path / name for name in ("model", "store", "data")}
    with pytest.raises(UsageError) as error:
        config_of(world, tmp_path / "run", **LEARNING | values)
    assert told in error.value.message
