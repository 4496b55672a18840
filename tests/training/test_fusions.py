"""Fusions that have something of their own to learn: weights of ranks, attention over vectors."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from consilience.errors import UsageError
from consilience.generation import Pair
from consilience.model import AskOptions, Rag
from consilience.model.averaging import RankWeights
from consilience.model.fusion import token_posteriors
from consilience.questions import read_questions
from consilience.store import Store
from consilience.training.measuring import fusion_taught
from consilience.training.optimising import optimiser_of
from consilience.training.run import train
from consilience.training.work import Work
from tests.training.small import (
    config_of,
    opened_session,
    train_until,
    write_dpr_world,
    write_world,
)
from tests.training.test_run import moved

K = 3


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny model of our own format."""
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def dpr(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of transformers, whose generator can look at vectors."""
    return write_dpr_world(tmp_path_factory.mktemp("dpr"))


RANKS: dict[str, Any] = {"objectives": {"average": 1}, "train": ["generator", "ranks"], "k": K}
LOOKING: dict[str, Any] = {
    "objectives": {"attention_fusion": 1},
    "train": ["generator", "attention"],
    "k": K,
}


class TestRanks:
    def test_the_gradient_is_that_of_the_formula(
        self, world: dict[str, Path], tmp_path: Path
    ) -> None:
        """Of -log p(y): for every token, the weight of a rank minus its share in the token."""
        session, store = opened_session(
            config_of(world, tmp_path / "run", **RANKS | {"train": ["ranks"]})
        )
        with store:
            learner, batch = session.learner.eval(), session.examples[0][:8]
            ranks = learner.model.ranks
            assert ranks is not None
            ranks.log_weights.data.copy_(torch.tensor([0.3, -0.2, 0.1]))
            learner(batch)["loss"].backward()
            work = Work(learner, batch)
            weights = ranks(torch.ones(1, K, dtype=torch.bool)).detach()
            shares = token_posteriors(
                work.rank_weights.detach(), work.log_probs.detach(), work.mask, fusion="token"
            )
            counted = work.mask.sum(1)[:, None] * weights.exp() - shares.sum(-1)
            assert ranks.log_weights.grad is not None
            torch.testing.assert_close(ranks.log_weights.grad, counted.mean(0))
            assert float(counted.mean(0).abs().max()) > 1e-3

    def test_they_are_learned_saved_and_answered_with(
        self, world: dict[str, Path], tmp_path: Path
    ) -> None:
        train(config_of(world, tmp_path / "run", **RANKS | {"steps": 20, "prior_rate": 0.05}))
        assert moved(world, tmp_path / "run", but=("ranks",)) == {"reader", "decoder"}
        rag = Rag.load(tmp_path / "run" / "model")
        assert rag.model.ranks is not None
        found = rag.model.ranks.told()
        assert sum(found.values()) == pytest.approx(1.0, abs=1e-5)
        assert max(abs(value - 1 / K) for value in found.values()) > 0.01
        logs = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").open()]
        last = next(log for log in reversed(logs) if "rank_1" in log)
        assert [last[name] for name in found] == pytest.approx(list(found.values()), abs=0.05)
        with Store.open(world["store"], create=False) as store:
            options = AskOptions(k=K, fusion="average", abstain=False, mode="dense")
            answer = rag.ask("what is the fee", store, options)
        assert len(answer.posterior) == K

    def test_ranks_that_a_model_has_go_on(self, world: dict[str, Path], tmp_path: Path) -> None:
        train(config_of(world, tmp_path / "one", **RANKS | {"steps": 4, "save_every": 4}))
        again = world | {"model": tmp_path / "one" / "model"}
        session, store = opened_session(config_of(again, tmp_path / "two", **RANKS))
        with store:
            ranks = session.rag.model.ranks
            assert ranks is not None
            assert not torch.equal(ranks.log_weights, torch.zeros(K))
            wider, other = opened_session(
                config_of(again, tmp_path / "three", **RANKS | {"k": K + 1})
            )
            with other, pytest.raises(UsageError, match="weights for 3 ranks, received 4 passages"):
                wider.learner(wider.examples[0][:2])

    def test_they_have_the_rate_of_the_prior(self, world: dict[str, Path], tmp_path: Path) -> None:
        config = config_of(world, tmp_path / "run", **RANKS | {"prior_rate": 0.07})
        session, store = opened_session(config)
        with store:
            groups = optimiser_of(session.learner, config).param_groups
            ranks = session.rag.model.ranks
            assert ranks is not None
            (own,) = [g for g in groups if any(w is ranks.log_weights for w in g["params"])]
        assert (own["lr"], len(own["params"])) == (0.07, 1)

    def test_they_learn_beside_adapters(self, world: dict[str, Path], tmp_path: Path) -> None:
        adapted = {"adapter": {"kind": "lora", "rank": 2}}
        session, store = opened_session(config_of(world, tmp_path / "run", **RANKS | adapted))
        with store:
            names = {n for n, w in session.rag.model.named_parameters() if w.requires_grad}
        assert "ranks.log_weights" in names
        assert all("lora_" in name for name in names - {"ranks.log_weights"})


class TestAttention:
    def test_it_learns_and_is_saved_beside_the_checkpoint(
        self, dpr: dict[str, Path], tmp_path: Path
    ) -> None:
        values = LOOKING | {"steps": 40, "save_every": 40, "learning_rate": 1e-2}
        train(config_of(dpr, tmp_path / "run", **values))
        logs = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").open()]
        losses = [log["loss_attention_fusion"] for log in logs if "loss_attention_fusion" in log]
        assert losses[-1] < 0.4 * losses[0]
        rag = Rag.load(tmp_path / "run" / "model")
        assert rag.model.attention is not None
        assert float(rag.model.attention.project.weight.detach().abs().max()) > 0.01
        with Store.open(dpr["store"], create=False) as store:
            options = AskOptions(k=K, fusion="attention", min_new_tokens=2, max_new_tokens=4)
            answer = rag.ask("what is the fee", store, options)
        assert sum(answer.posterior.values()) == pytest.approx(1.0, abs=1e-4)
        assert len(answer.posterior) == K

    def test_the_gradient_is_that_of_finite_differences(
        self, dpr: dict[str, Path], tmp_path: Path
    ) -> None:
        session, store = opened_session(config_of(dpr, tmp_path / "run", **LOOKING))
        with store:
            learner, batch = session.learner.eval(), session.examples[0][:4]
            fusion = learner.model.attention
            assert fusion is not None
            torch.manual_seed(2)
            torch.nn.init.normal_(fusion.project.weight, std=0.2)
            learner(batch)["loss"].backward()
            for weight in (fusion.compare.weight, fusion.project.weight):
                assert weight.grad is not None
                place = tuple(
                    int(i) for i in (weight.grad.abs() == weight.grad.abs().max()).nonzero()[0]
                )
                at, values = float(weight.detach()[place]), []
                for step in (1e-2, -1e-2):
                    weight.data[place] = at + step
                    values.append(float(learner(batch)["loss"].detach()))
                weight.data[place] = at
                slope = (values[0] - values[1]) / 2e-2
                assert abs(slope) > 1e-3
                assert float(weight.grad[place]) == pytest.approx(slope, rel=0.05)

    def test_it_reaches_the_encoder_of_passages(self, dpr: dict[str, Path], tmp_path: Path) -> None:
        parts = {"train": ["passage_encoder", "attention"], "refresh": {"mode": "synchronous"}}
        session, store = opened_session(config_of(dpr, tmp_path / "run", **LOOKING | parts))
        with store:
            fusion = session.learner.model.attention
            assert fusion is not None
            torch.nn.init.normal_(fusion.project.weight, std=0.2)
            session.learner(session.examples[0][:4])["loss"].backward()
            encoder: Any = session.rag.model.passage_encoder
            grads = [w.grad for w in encoder.parameters() if w.grad is not None]
        assert max(float(grad.abs().max()) for grad in grads) > 1e-4

    def test_a_run_that_was_stopped_goes_on_bit_for_bit(
        self, dpr: dict[str, Path], tmp_path: Path
    ) -> None:
        values = LOOKING | {"save_every": 1, "accumulate": 2, "batch": 4}
        values["objectives"] = {"attention_fusion": 1, "average": 0.5}
        values["train"] = ["generator", "attention", "ranks"]
        whole = train(config_of(dpr, tmp_path / "whole", **values))
        config = config_of(dpr, tmp_path / "parts", **values)
        train_until(config, 4)
        resumed = train(config)
        assert resumed.resumed_from is not None
        assert resumed.metrics == whole.metrics
        ends = [Rag.load(tmp_path / run / "model").model for run in ("whole", "parts")]
        for one, other in zip(ends[0].parameters(), ends[1].parameters(), strict=True):
            assert torch.equal(one, other)

    def test_a_generator_without_a_place_for_it(
        self, world: dict[str, Path], tmp_path: Path
    ) -> None:
        with pytest.raises(UsageError, match="no input that passage vectors could be added to"):
            train(config_of(world, tmp_path / "run", **LOOKING))

    def test_a_model_without_it_has_to_learn_it(self, dpr: dict[str, Path], tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="this model has none") as error:
            train(config_of(dpr, tmp_path / "run", **LOOKING | {"train": ["generator"]}))
        assert error.value.hint == "put attention under train"


@pytest.mark.parametrize(
    ("train_", "objectives", "told"),
    [
        (["ranks"], {"sequence": 1}, "ranks is in train, but no objective average"),
        (["attention"], {"fid": 1}, "attention is in train, but no objective attention_fusion"),
        (["ranks"], {"sequence": 1, "average": 0}, "ranks is in train, but no objective average"),
    ],
)
def test_what_learns_needs_its_objective(
    tmp_path: Path, train_: list[str], objectives: dict[str, float], told: str
) -> None:
    world = {name: tmp_path / name for name in ("model", "store", "data")}
    with pytest.raises(UsageError) as error:
        config_of(world, tmp_path / "run", train=train_, objectives=objectives)
    assert told in error.value.message


def test_one_text_of_all_proposals_is_what_an_answer_is_written_from(
    world: dict[str, Path], tmp_path: Path
) -> None:
    """The likelihood that the objective concat learns is that of the fusion concat."""
    session, store = opened_session(
        config_of(world, tmp_path / "run", objectives={"concat": 1}, k=K)
    )
    with store:
        work = Work(session.learner.eval(), session.examples[0][:2])
        learned = -work.unlikely(work.in_one_text)
        for row, example in enumerate(work.batch):
            hits = session.rag.retriever(store, "dense").search(example.question, k=K)
            text = "\n\n".join(hit.passage.text for hit in hits)
            memory = session.rag.model.generator.read([Pair(example.question, "", text)])
            ids = torch.tensor([session.rag.model.generator.answer_ids(example.answer)])
            alone = session.rag.model.generator.score(memory, ids).sum()
            assert float(learned[row].detach()) == pytest.approx(float(alone), abs=1e-3)


@pytest.mark.parametrize("name", ["token", "fid", "average", "concat"])
def test_a_run_is_measured_by_what_it_teaches(
    world: dict[str, Path], tmp_path: Path, name: str
) -> None:
    """Answers of the measurement are those of `ask` with that fusion."""
    dev = tmp_path / "dev.jsonl"
    dev.write_text('{"question": "what is the bus", "answers": ["2"]}\n', encoding="utf-8")
    values = {"objectives": {name: 1}, "k": K, "data": {"train": [str(world["data"])]}}
    session, store = opened_session(config_of(world, tmp_path / "run", **values))
    with store:
        asked = session._examples(read_questions(dev))
        session.dev = asked
        measured = session.measurement
        assert measured is not None
        session.learner.eval()
        (found,) = measured._answers(Work(session.learner, asked))
        options = AskOptions(
            k=K, mode="dense", fusion=name, beams=1, max_new_tokens=32, abstain=False
        )
        answer = session.rag.ask(asked[0].question, store, options)
    assert found == answer.text


def test_what_weighs_most_says_how_answers_are_written() -> None:
    assert fusion_taught({"emdr2": 1.0}) == "sequence"
    assert fusion_taught({"fid": 0.4, "token": 0.6, "attention": 1.0}) == "token"
    assert fusion_taught({"attention_fusion": 1.0, "sequence": 0.0}) == "attention"


def test_ranks_tell_their_shares() -> None:
    assert RankWeights([3.0, 1.0]).told() == {"rank_1": 0.75, "rank_2": 0.25}
