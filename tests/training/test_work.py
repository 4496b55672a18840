"""What the objectives of a batch share: vectors of passages, from the store where they stay."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from consilience import Rag, Store
from consilience.questions import Context, read_questions
from consilience.training.learner import Learner
from consilience.training.session import Session
from consilience.training.work import Work
from tests.training.small import config_of, opened_session, write_dpr_world, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def dpr(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_dpr_world(tmp_path_factory.mktemp("dpr"))


class Given:
    """Work on a batch, and the texts that were embedded for it."""

    def __init__(self, learner: Learner, session: Session) -> None:
        self.work, self.session = Work(learner, session.examples[0][:4]), session
        self.read: list[int] = []
        encoder = self.work.model.passage_encoder
        assert isinstance(encoder, torch.nn.Module)
        encoder.register_forward_pre_hook(lambda _, inputs: self.read.append(len(inputs[0])))

    def context(self, place: int) -> Context:
        """A passage of the store as questions name it."""
        assert self.session.index is not None
        (found,) = self.session.index.passages([place])
        return Context(found.id, found.title, found.text)


@pytest.fixture
def store(world: dict[str, Path]) -> Iterator[Store]:
    with Store.open(world["store"], encoder=Rag.load(world["model"]).encoder) as opened:
        yield opened


def given(world: dict[str, Path], store: Store, output: Path, **values: Any) -> Given:
    config = config_of(world, output, objectives={"info_nce": 1}, **values)
    session = Session(config, store, [read_questions(world["data"])], [])
    return Given(session.learner, session)


def test_vectors_that_stay_are_the_stores_own(
    world: dict[str, Path], store: Store, tmp_path: Path
) -> None:
    made = given(world, store, tmp_path, train=["question_encoder"])
    assert made.session.index is not None
    found = made.work.passage_vectors([made.context(5), made.context(2)])
    assert made.read == []
    assert torch.equal(found, made.session.index.vectors[[5, 2]])
    assert not found.requires_grad


def test_a_passage_that_the_store_does_not_hold_is_embedded_in_its_place(
    world: dict[str, Path], store: Store, tmp_path: Path
) -> None:
    made = given(world, store, tmp_path, train=["question_encoder"])
    known, other = made.context(3), Context("context-1", "", "the bus is late")
    found = made.work.passage_vectors([other, known, other])
    assert made.read == [2]
    own = made.work.passage_vectors([known])
    torch.testing.assert_close(found[1], own[0], atol=0, rtol=0)
    torch.testing.assert_close(found[0], found[2])
    assert not torch.allclose(found[0], found[1])


def test_vectors_that_move_are_computed_and_learn(
    world: dict[str, Path], store: Store, tmp_path: Path
) -> None:
    made = given(world, store, tmp_path, train=["question_encoder", "passage_encoder"])
    found = made.work.passage_vectors([made.context(5), made.context(2)])
    assert made.read == [2]
    assert found.requires_grad


def test_the_stores_vectors_are_those_that_the_encoder_gives(
    world: dict[str, Path], store: Store, tmp_path: Path
) -> None:
    still = given(world, store, tmp_path / "a", train=["question_encoder"])
    moving = given(world, store, tmp_path / "b", train=["question_encoder", "passage_encoder"])
    asked = [still.context(place) for place in range(4)]
    one, other = still.work.passage_vectors(asked), moving.work.passage_vectors(asked)
    torch.testing.assert_close(one, other.detach(), atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize("objective", ["sequence", "token", "perplexity"])
def test_the_passage_encoder_learns_through_its_own_prior(
    tmp_path: Path, dpr: dict[str, Path], objective: str
) -> None:
    """The encoders share no weight, so the questions' side of the product cannot pass for it."""
    values = {"train": ["question_encoder", "passage_encoder"], "refresh": {"mode": "synchronous"}}
    config = config_of(dpr, tmp_path / "run", objectives={objective: 1}, **values)
    session, store = opened_session(config)
    with store:
        session.learner(session.examples[0][:4])["loss"].backward()
    model = session.rag.model
    for encoder in (model.question_encoder, model.passage_encoder):
        assert isinstance(encoder, torch.nn.Module)
        gradients = [weight.grad for weight in encoder.parameters() if weight.grad is not None]
        assert max(float(gradient.abs().max()) for gradient in gradients) > 0


def test_of_what_is_proposed_the_best_by_the_encoder_as_it_is_now_are_kept(
    world: dict[str, Path], store: Store, tmp_path: Path
) -> None:
    values = {"train": ["passage_encoder"], "refresh": {"mode": "proposed", "over": 3}, "k": 2}
    made = given(world, store, tmp_path, **values)
    work, index = made.work, made.session.index
    assert index is not None
    encoder = work.model.passage_encoder
    assert isinstance(encoder, torch.nn.Module)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
        asked, old = work.question_vectors, index.vectors.clone()
        wide = index.propose(asked, 6).places
        kept = work.proposals.places
        now = work.passage_vectors([made.context(place) for place in range(len(index))])
    best = (asked @ now.T).gather(1, wide).topk(2, dim=1).indices
    assert kept.tolist() == wide.gather(1, best).tolist()
    assert kept.tolist() != wide[:, :2].tolist(), "an order that stays shows nothing"
    looked_at = sorted(set(wide.flatten().tolist()))
    torch.testing.assert_close(index.vectors[looked_at], now[looked_at], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(old[looked_at], now[looked_at], atol=1e-3)
