"""Labels are smoothed in every objective that makes answers likely, and in no other."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from consilience import Rag, Store
from consilience.errors import UsageError
from consilience.questions import read_questions
from consilience.training.aims import OBJECTIVES
from consilience.training.names import LIKELY
from consilience.training.session import Session
from consilience.training.work import Work
from tests.training.small import config_of, write_world

# Attention fusion needs a layer of its own, which the model of this test does not have.
HERE = sorted(LIKELY - {"attention_fusion"})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def store(world: dict[str, Path]) -> Iterator[Store]:
    with Store.open(world["store"], encoder=Rag.load(world["model"]).encoder) as opened:
        yield opened


def work(world: dict[str, Path], store: Store, name: str, **values: Any) -> Work:
    """Four questions of a run with one objective."""
    train = ["question_encoder", "generator", *(["ranks"] if name == "average" else [])]
    config = config_of(world, Path("unused"), objectives={name: 1}, train=train, **values)
    session = Session(config, store, [read_questions(world["data"])], [])
    session.learner.eval()
    return Work(session.learner, session.examples[0][:4])


def rows_of(made: Work, name: str) -> tuple[Tensor, Tensor]:
    """Log weights of what is summed `[b, k]`, and log p of every word given each `[b, k, t, v]`."""
    if name in ("sequence", "token"):
        return made.prior, made.words
    if name == "average":
        return made.rank_weights, made.words
    if name == "reader":
        passages = [one.passage for one in made.batch if one.passage is not None]
        memory = made.read([one.question for one in made.batch], passages)
    else:
        memory = made.joined if name == "fid" else made.in_one_text
    targets = made.targets.masked_fill(~made.mask, made.generator.end)
    words = made.generator.next_logits(memory, targets).log_softmax(-1)[:, None]
    return words.new_zeros(len(words), 1), words


@pytest.mark.parametrize("name", HERE)
def test_the_loss_is_that_of_a_target_spread_over_all_words(
    world: dict[str, Path], store: Store, name: str
) -> None:
    strength = 0.3
    made = work(world, store, name, smoothing=strength)
    weights, words = rows_of(made, name)
    spread = torch.full_like(words, strength / words.shape[-1])
    chosen = made.targets.masked_fill(~made.mask, 0)[:, None, :, None]
    spread.scatter_(-1, chosen.expand(-1, words.shape[1], -1, -1), 1 - strength, reduce="add")
    mask = made.mask[:, None].to(words.dtype)
    given = (words.gather(-1, chosen.expand_as(words[..., :1]))[..., 0] * mask).sum(-1)
    if name == "sequence":
        # The prior is not smoothed: each passage's loss is, under the posterior.
        posterior = (weights + given).softmax(-1)
        each = -((spread * words).sum(-1) * mask).sum(-1)
        likelihood = (weights + given).logsumexp(-1)
        expected = -likelihood + (posterior * (each + given)).sum(-1)
    else:
        summed = (weights[..., None, None] + words).logsumexp(1)
        expected = -((spread[:, 0] * summed).sum(-1) * made.mask).sum(-1)
    loss = OBJECTIVES[name](work(world, store, name, smoothing=strength))  # type: ignore[index]
    torch.testing.assert_close(loss, expected.mean(), atol=1e-4, rtol=1e-4)
    plain = OBJECTIVES[name](work(world, store, name))  # type: ignore[index]
    assert float(loss.detach()) != pytest.approx(float(plain.detach()), rel=1e-3)


def test_what_it_would_do_nothing_to_is_refused(world: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="smoothing is for the objectives attention_fusion, aver"):
        config_of(world, tmp_path, objectives={"info_nce": 1}, smoothing=0.1)
