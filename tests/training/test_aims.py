"""Which of a batch's things go into an objective, and which do not."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from consilience.questions import Context
from consilience.training.aims import OBJECTIVES
from consilience.training.examples import Example
from consilience.training.work import Work
from tests.training.small import config_of, opened_session, write_world

RIGHT, WRONG = (Context(f"id of {text}", "", text) for text in ("the fee is 3", "the bank is 4"))
ASKED = Example("what is the fee", "3", ("3",), passage=RIGHT)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_world(tmp_path_factory.mktemp("world"))


def test_a_passage_says_none_exactly_where_it_holds_no_answer(
    world: dict[str, Path], tmp_path: Path
) -> None:
    session, store = opened_session(config_of(world, tmp_path / "run", objectives={"abstain": 1}))
    unanswerable = replace(ASKED, answer="", answers=(), passage=WRONG, unanswerable=True)
    batch = [replace(ASKED, negatives=(WRONG,)), unanswerable]
    with store, torch.no_grad():
        work = Work(session.learner.eval(), batch)
        none = work.generator.none
        assert none is not None
        memory = work.read([ASKED.question] * 3, [RIGHT, WRONG, WRONG])
        said = work.generator.target_log_probs(memory, torch.full((3, 1), none))[:, 0].exp()
        expected = -((1 - said[0]).log() + said[1].log() + said[2].log()) / 3
        torch.testing.assert_close(session.learner(batch)["loss"], expected, atol=1e-5, rtol=1e-5)


def test_a_longer_answer_beside_it_changes_nothing_for_a_reader(
    world: dict[str, Path], tmp_path: Path
) -> None:
    session, store = opened_session(config_of(world, tmp_path / "run", objectives={"reader": 1}))
    longer = replace(ASKED, answer="the bank of the ward", answers=("the bank of the ward",))
    with store, torch.no_grad():
        learner = session.learner.eval()
        alone = [float(learner([one])["loss"]) for one in (ASKED, longer)]
        both = float(learner([ASKED, longer])["loss"])
    assert both == pytest.approx(sum(alone) / 2, rel=1e-4)


def test_leaving_one_out_draws_the_prior_to_the_passage_that_is_missed(
    world: dict[str, Path], tmp_path: Path
) -> None:
    config = config_of(world, tmp_path / "run", objectives={"leave_one_out": 1})
    session, store = opened_session(config)
    with store:
        work = Work(session.learner, session.examples[0][:4])
        scores = torch.zeros(4, 3, requires_grad=True)
        explains = torch.tensor([[0], [1], [2], [1]]) == torch.arange(3)
        told = torch.where(explains, -0.1, -5.0)[..., None].expand(-1, -1, work.targets.shape[1])
        work.__dict__ |= {"scores": scores, "log_probs": told}
        (pulled,) = torch.autograd.grad(OBJECTIVES["leave_one_out"](work), scores)
    assert bool((pulled[explains] < 0).all())
    assert bool((pulled[~explains] > 0).all())
