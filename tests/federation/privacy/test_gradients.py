from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from consilience.federation.privacy.clipping import LEVELS, Told, contribution
from consilience.federation.privacy.gradients import QuestionGradients
from consilience.training.examples import Example
from consilience.training.learner import Learner
from tests.federation.privacy.learners import World, compact, moving_of, opened_world, other


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with opened_world(tmp_path_factory.mktemp("party")) as found:
        yield found


def of(learner: Learner) -> QuestionGradients:
    return QuestionGradients(learner, moving_of(learner))


def by_one(learner: Learner, examples: list[Example]) -> Tensor:
    return torch.stack([gradient for gradient, _ in of(learner).one_by_one(examples)])


def of_the_batch(learner: Learner, examples: list[Example]) -> Tensor:
    """As plain training takes it: the gradient of the mean over the batch."""
    learner.zero_grad()
    learner(examples)["loss"].backward()
    parts = [
        p.grad if p.grad is not None else torch.zeros_like(p) for p in moving_of(learner).values()
    ]
    return torch.cat([part.flatten() for part in parts])


def near(one: Tensor, another: Tensor) -> bool:
    """Within 1e-5 of the longest."""
    assert float(another.norm()) > 1e-3
    return bool((one - another).abs().max() <= 1e-5 * max(1.0, float(another.norm(dim=-1).max())))


@pytest.mark.parametrize(
    "objectives",
    [
        {"sequence": 1.0},
        {"token": 1.0, "perplexity": 0.5},
        {"emdr2": 1.0, "leave_one_out": 0.5},
        {"fid": 1.0},
    ],
    ids=lambda one: "+".join(one),
)
def test_together_and_one_by_one_are_the_same(world: World, objectives: dict[str, float]) -> None:
    learner = compact(world, k=3, moving=False, **objectives)
    examples = world.distinct()[:5]
    gradients = of(learner)
    given = gradients._given(examples)
    assert given is not None
    found = list(gradients.together(given))
    expected = list(gradients.one_by_one(examples))
    assert near(torch.stack([g for g, _ in found]), torch.stack([g for g, _ in expected]))
    assert [loss for _, loss in found] == pytest.approx([loss for _, loss in expected], abs=1e-5)


def test_together_and_one_by_one_are_the_same_where_passages_learn(world: World) -> None:
    learner = compact(world, moving=True)
    gradients, examples = of(learner), world.distinct()[:3]
    given = gradients._given(examples)
    assert given is not None
    found = torch.stack([g for g, _ in gradients.together(given)])
    assert near(found, by_one(learner, examples))  # and the layers that both share are put back


@pytest.mark.parametrize("kind", ["compact", "bart", "t5", "gpt2"])
def test_the_mean_over_questions_is_the_gradient_of_the_batch(world: World, kind: str) -> None:
    learner = compact(world) if kind == "compact" else other(world, kind)
    examples = world.distinct()[:4]
    assert near(by_one(learner, examples).mean(0), of_the_batch(learner, examples))


def test_only_objectives_on_tensors_of_the_shipped_kind_are_taken_together(world: World) -> None:
    assert of(compact(world)).possible
    assert not of(compact(world, sequence=1.0, reader=1.0)).possible
    for kind in ("bart", "t5", "gpt2"):
        learner = other(world, kind)
        gradients = of(learner)
        assert not gradients.possible
        given = gradients._given(world.distinct()[:2])
        assert given is not None
        with pytest.raises(RuntimeError, match="vmap"):  # the reason why
            list(gradients.together(given))


def test_of_takes_the_way_of_the_device_and_gives_every_question(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, examples = compact(world), world.examples[:11]
    gradients = of(learner)
    assert not gradients.vectorised  # on a processor one by one is faster
    expected = torch.stack([gradient for gradient, _ in gradients.of(examples)])
    monkeypatch.setattr(gradients, "vectorised", True)
    monkeypatch.setattr(gradients, "one_by_one", None)
    found = torch.stack([gradient for gradient, _ in gradients.of(examples)])
    assert found.shape == (11, gradients.size)
    assert near(found, expected)


def test_questions_with_fewer_passages_than_others_go_one_by_one(world: World) -> None:
    learner = compact(world, k=20)  # the store has eight
    gradients = of(learner)
    assert gradients._given(world.distinct()) is None
    gradients.vectorised = True
    found = torch.stack([gradient for gradient, _ in gradients.of(world.distinct()[:2])])
    assert near(found, by_one(learner, world.distinct()[:2]))


def test_a_question_from_which_nothing_is_learned_adds_nothing(world: World) -> None:
    learner = compact(world, reader=1.0)
    moving = {n: p for n, p in moving_of(learner).items() if n != "model.log_temperature"}
    learner.model.log_temperature.requires_grad_(False)
    example = Example("who is it", "3", ("3",))  # no passage is known
    ((gradient, loss),) = QuestionGradients(learner, moving).one_by_one([example])
    assert not gradient.any()
    assert loss == 0.0


def test_clipping_rows_would_let_a_question_count_more_than_once(world: World) -> None:
    """What Opacus takes for samples are the rows of the generator, k of them a question."""
    from opacus import GradSampleModule  # type: ignore[import-untyped]

    longest = 0.01
    learner = compact(world, k=8).train()
    (example,) = world.distinct()[:1]
    hooked = GradSampleModule(learner.model.generator, loss_reduction="sum", strict=False)
    try:
        learner([example])["loss"].backward()
        samples = [p.grad_sample for p in hooked.parameters() if p.requires_grad]
        rows = torch.cat([sample.flatten(1) for sample in samples], dim=1)
    finally:
        hooked.to_standard_module()
    assert rows.shape[0] == 8  # not 1
    lengths = rows.norm(dim=1, keepdim=True)
    by_rows = (rows * (longest / lengths.clamp_min(longest))).sum(0)
    assert float(by_rows.norm()) > 3 * longest
    ((gradient, loss),) = of(learner).one_by_one([example])
    ours = contribution([Told(0, gradient, loss)], longest) * (longest / LEVELS)
    assert 0.9 * longest < float(ours.norm()) <= longest
