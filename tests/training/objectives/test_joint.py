"""Joint objectives: gradients that can be derived by hand, Atlas's formulas, and the limits."""

import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from consilience.errors import UsageError
from consilience.model.fusion import answer_posterior, log_prior
from consilience.training.objectives import (
    Alignment,
    attention_distillation,
    attention_worth,
    emdr2,
    leave_one_out,
    marginal_likelihood,
    perplexity_distillation,
    without_each,
)

MASK = torch.tensor([[True, True, True, False], [True, False, False, False]])
ABSENT = float("-inf")


def scores(b: int = 2, k: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(b, k, dtype=torch.float64, generator=generator)


def log_probs(b: int = 2, k: int = 3, t: int = 4, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(b, k, t, 9, dtype=torch.float64, generator=generator)
    return drawn.log_softmax(-1)[..., 0]


def of_scores(given: Tensor, which: str) -> Tensor:
    """Each objective as a function of the scores alone."""
    gentle = Alignment(dimension=4, score_temperature=0.5, target_temperature=0.5)
    told = log_probs().detach()
    return {
        "sequence": lambda: marginal_likelihood(given, told, MASK),
        "token": lambda: marginal_likelihood(given, told, MASK, fusion="token", temperature=0.5),
        "emdr2": lambda: emdr2(given, told, MASK, temperature=2.0),
        "emdr2 of atlas": lambda: emdr2(given, told, MASK, as_atlas=True),
        "perplexity": lambda: perplexity_distillation(given, told, MASK, alignment=gentle),
        "leave one out": lambda: leave_one_out(given, told, MASK, alignment=gentle),
        "attention": lambda: attention_distillation(given, told[..., 0], alignment=gentle),
    }[which]()


NAMES = [
    *("sequence", "token", "emdr2", "emdr2 of atlas"),
    *("perplexity", "leave one out", "attention"),
]


@pytest.mark.parametrize("which", NAMES)
def test_gradient_of_the_scores_agrees_with_finite_differences(which: str) -> None:
    assert gradcheck(lambda given: of_scores(given, which), (scores().requires_grad_(),))


@pytest.mark.parametrize("which", NAMES)
def test_the_level_of_the_scores_does_not_matter(which: str) -> None:
    moved = scores() + torch.tensor([[3.0], [-7.0]], dtype=torch.float64)
    torch.testing.assert_close(of_scores(moved, which), of_scores(scores(), which))


@pytest.mark.parametrize("which", NAMES)
def test_the_order_of_questions_does_not_matter(which: str) -> None:
    given, told = scores(4, 3), log_probs(4, 3)
    mask = torch.tensor([[True, True, False, False]] * 4)
    order = torch.tensor([2, 0, 3, 1])

    def value(rows: Tensor) -> Tensor:
        return {
            "sequence": lambda: marginal_likelihood(given[rows], told[rows], mask),
            "token": lambda: marginal_likelihood(given[rows], told[rows], mask, fusion="token"),
            "emdr2": lambda: emdr2(given[rows], told[rows], mask),
            "emdr2 of atlas": lambda: emdr2(given[rows], told[rows], mask, as_atlas=True),
            "perplexity": lambda: perplexity_distillation(given[rows], told[rows], mask),
            "leave one out": lambda: leave_one_out(given[rows], told[rows], mask),
            "attention": lambda: attention_distillation(given[rows], told[rows][..., 0]),
        }[which]()

    torch.testing.assert_close(value(order), value(torch.arange(4)))


@pytest.mark.parametrize("which", NAMES)
def test_a_missing_passage_is_as_none(which: str) -> None:
    padded = torch.cat([scores(), torch.full((2, 1), ABSENT, dtype=torch.float64)], dim=1)
    extra = torch.cat([log_probs(), log_probs(2, 1, seed=5)], dim=1)
    gentle = Alignment(score_temperature=0.5, target_temperature=0.5)

    def value(given: Tensor, told: Tensor) -> Tensor:
        return {
            "sequence": lambda: marginal_likelihood(given, told, MASK),
            "token": lambda: marginal_likelihood(given, told, MASK, fusion="token"),
            "emdr2": lambda: emdr2(given, told, MASK),
            "emdr2 of atlas": lambda: emdr2(given, told, MASK, as_atlas=True),
            "perplexity": lambda: perplexity_distillation(given, told, MASK, alignment=gentle),
            "leave one out": lambda: leave_one_out(given, told, MASK, alignment=gentle),
            "attention": lambda: attention_distillation(given, told[..., 0], alignment=gentle),
        }[which]()

    given = padded.clone().requires_grad_()
    loss = value(given, extra)
    torch.testing.assert_close(loss, value(scores(), log_probs()))
    loss.backward()
    assert given.grad is not None
    assert bool(given.grad.isfinite().all())
    assert float(given.grad[:, 3].abs().max()) == 0.0


@pytest.mark.parametrize("empty", ["passages", "target"])
@pytest.mark.parametrize("which", ["marginal", "emdr2", "emdr2 of atlas", "perplexity", "loop"])
def test_a_question_without_passage_or_target_is_left_out(which: str, empty: str) -> None:
    given, told, mask = scores(), log_probs(), MASK.clone()
    if empty == "passages":
        given[1] = ABSENT
    else:
        mask[1] = False
    given.requires_grad_()

    def value(rows: slice) -> Tensor:
        return {
            "marginal": lambda: marginal_likelihood(given[rows], told[rows], mask[rows]),
            "emdr2": lambda: emdr2(given[rows], told[rows], mask[rows]),
            "emdr2 of atlas": lambda: emdr2(given[rows], told[rows], mask[rows], as_atlas=True),
            "perplexity": lambda: perplexity_distillation(given[rows], told[rows], mask[rows]),
            "loop": lambda: leave_one_out(given[rows], told[rows], mask[rows]),
        }[which]()

    torch.testing.assert_close(value(slice(2)), value(slice(1)))
    (gradient,) = torch.autograd.grad(value(slice(2)), given)
    assert bool(gradient.isfinite().all())
    assert float(gradient[1].abs().max()) == 0.0
    alone = value(slice(1, 2))
    assert float(alone.detach()) == 0.0
    assert float(torch.autograd.grad(alone, given)[0].abs().max()) == 0.0


class TestMarginal:
    def test_gradient_of_the_scores_is_prior_minus_posterior(self) -> None:
        given = scores().requires_grad_()
        marginal_likelihood(given, log_probs(), MASK).backward()
        prior = log_prior(given.detach())
        posterior = answer_posterior(prior, log_probs(), MASK, fusion="sequence")
        assert given.grad is not None
        torch.testing.assert_close(given.grad, (prior.exp() - posterior) / 2)

    def test_gradient_of_the_log_probs_is_minus_the_posterior(self) -> None:
        told = log_probs().requires_grad_()
        marginal_likelihood(scores(), told, MASK).backward()
        posterior = answer_posterior(log_prior(scores()), log_probs(), MASK, fusion="sequence")
        assert told.grad is not None
        expected = -posterior[..., None] * MASK[:, None, :] / 2
        torch.testing.assert_close(told.grad, expected)

    def test_one_token_makes_sequence_and_token_the_same(self) -> None:
        one = MASK.clone()
        one[:, 1:] = False
        torch.testing.assert_close(
            marginal_likelihood(scores(), log_probs(), one),
            marginal_likelihood(scores(), log_probs(), one, fusion="token"),
        )

    def test_one_passage_is_the_likelihood_of_the_generator(self) -> None:
        told = log_probs(2, 1)
        expected = -(told[:, 0] * MASK).sum(-1).mean()
        torch.testing.assert_close(marginal_likelihood(scores(2, 1), told, MASK), expected)

    def test_the_temperature_can_be_learned(self) -> None:
        temperature = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)

        def loss(degree: Tensor) -> Tensor:
            return marginal_likelihood(scores(), log_probs(), MASK, temperature=degree)

        assert gradcheck(loss, (temperature,))


class TestEmdr2:
    def test_the_retriever_learns_what_the_marginal_teaches_it(self) -> None:
        first, second = scores().requires_grad_(), scores().requires_grad_()
        marginal_likelihood(first, log_probs(), MASK).backward()
        emdr2(second, log_probs(), MASK).backward()
        torch.testing.assert_close(second.grad, first.grad)

    @pytest.mark.parametrize("as_atlas", [False, True])
    def test_the_generator_learns_nothing(self, as_atlas: bool) -> None:
        given, told = scores().requires_grad_(), log_probs().requires_grad_()
        emdr2(given, told, MASK, as_atlas=as_atlas).backward()
        assert told.grad is None
        assert given.grad is not None
        assert float(given.grad.abs().max()) > 0.01

    def test_as_atlas_computes_it(self) -> None:
        given, told = scores(), log_probs()
        dimension = 64
        total, tokens = 0.0, 0
        for i in range(2):
            weights = torch.softmax(given[i] / math.sqrt(dimension) / 0.01, dim=-1)
            for t in range(4):
                if MASK[i, t]:
                    total -= math.log(float((weights * told[i, :, t].exp()).sum()))
                    tokens += 1
        found = emdr2(given, told, MASK, temperature=0.01 * math.sqrt(dimension), as_atlas=True)
        assert float(found) == pytest.approx(total / tokens)


class TestDistillation:
    """Perplexity, leave-one-out and attention against a second implementation of the formulas."""

    dimension = 16

    def reference(self, given: Tensor, gold: Tensor) -> Tensor:
        told = torch.log_softmax(given / self.dimension**0.5 / 0.01, dim=-1)
        wanted = torch.softmax(gold / 0.01, dim=-1)
        pointwise = torch.nn.KLDivLoss(reduction="none")(told, wanted)
        return pointwise.mean()  # what reduction="mean" has always meant

    def test_perplexity_as_atlas(self) -> None:
        told, atlas = log_probs(), Alignment(dimension=self.dimension, as_atlas=True)
        gold = torch.stack(
            [told[i][:, MASK[i]].mean(-1) for i in range(2)]  # minus the mean token loss
        )
        torch.testing.assert_close(
            perplexity_distillation(scores(), told, MASK, alignment=atlas),
            self.reference(scores(), gold),
        )

    def test_leave_one_out_as_atlas(self) -> None:
        told, atlas = log_probs(), Alignment(dimension=self.dimension, as_atlas=True)
        gold = torch.stack([-told[i][:, MASK[i]].mean(-1) for i in range(2)])
        torch.testing.assert_close(
            leave_one_out(scores(), told, MASK, alignment=atlas), self.reference(scores(), gold)
        )

    def test_attention_as_atlas(self) -> None:
        worth, atlas = scores(seed=4).abs(), Alignment(dimension=self.dimension, as_atlas=True)
        torch.testing.assert_close(
            attention_distillation(scores(), worth, alignment=atlas),
            self.reference(scores(), worth),
        )

    def test_the_proper_mean_is_larger_by_the_number_of_passages(self) -> None:
        proper, atlas = Alignment(), Alignment(as_atlas=True)
        torch.testing.assert_close(
            perplexity_distillation(scores(), log_probs(), MASK, alignment=proper),
            3 * perplexity_distillation(scores(), log_probs(), MASK, alignment=atlas),
        )

    def test_gradient_is_prior_minus_target(self) -> None:
        even = Alignment(score_temperature=1.0, target_temperature=1.0)
        given = scores().requires_grad_()
        attention_distillation(given, scores(seed=4), alignment=even).backward()
        assert given.grad is not None
        expected = (scores().softmax(-1) - scores(seed=4).softmax(-1)) / 2
        torch.testing.assert_close(given.grad, expected)

    def test_the_generator_learns_nothing(self) -> None:
        told = log_probs().requires_grad_()
        given = scores().requires_grad_()
        losses = [
            perplexity_distillation(given, told, MASK),
            leave_one_out(given, told, MASK),
            attention_distillation(given, told[..., 0]),
        ]
        torch.stack(losses).sum().backward()
        assert told.grad is None

    def test_a_passage_that_is_impossible_gets_nothing(self) -> None:
        told = log_probs()
        told[0, 1] = ABSENT
        given = scores().requires_grad_()
        loss = perplexity_distillation(given, told, MASK)
        loss.backward()
        assert bool(loss.isfinite())
        assert given.grad is not None
        assert bool(given.grad.isfinite().all())

    def test_one_passage_leaves_nothing_to_learn(self) -> None:
        for objective in (perplexity_distillation, leave_one_out):
            assert float(objective(scores(2, 1), log_probs(2, 1), MASK)) == 0.0

    @pytest.mark.parametrize("name", ["dimension", "score_temperature", "target_temperature"])
    def test_settings_must_be_above_zero(self, name: str) -> None:
        with pytest.raises(UsageError, match=f"must be above zero, received .*{name}=0"):
            Alignment(**{name: 0})


class TestWithoutEach:
    @pytest.mark.parametrize("fusion", ["sequence", "token"])
    def test_is_the_sum_over_the_others(self, fusion: str) -> None:
        prior = log_prior(scores())
        found = without_each(prior, log_probs(), MASK, fusion=fusion)  # type: ignore[arg-type]
        for gone in range(3):
            others = [k for k in range(3) if k != gone]
            rest = log_prior(scores()[:, others])
            told = log_probs()[:, others]
            for i in range(2):
                expected = -marginal_likelihood(
                    rest[i : i + 1],
                    told[i : i + 1],
                    MASK[i : i + 1],
                    fusion=fusion,  # type: ignore[arg-type]
                )
                torch.testing.assert_close((found[i, gone] * MASK[i]).sum(), expected)

    def test_the_passage_that_explains_the_answer_is_missed_most(self) -> None:
        told = torch.full((1, 3, 1), 0.01).log()
        told[0, 1] = math.log(0.9)
        prior, mask = torch.full((1, 3), 1 / 3).log(), torch.tensor([[True]])
        found = without_each(prior, told, mask)
        assert int(found[0, :, 0].argmin()) == 1
        given = torch.zeros(1, 3, requires_grad=True)
        leave_one_out(given, found, mask, alignment=Alignment(1, 1.0, 1.0)).backward()
        assert given.grad is not None
        assert int(given.grad[0].argmin()) == 1

    def test_the_only_passage_stays(self) -> None:
        told, mask = log_probs(1, 2)[:, :, :1], torch.tensor([[True]])
        given = torch.tensor([[0.3, ABSENT]], dtype=torch.float64)
        found = without_each(log_prior(given), told, mask)
        torch.testing.assert_close(found[0, 0, 0], told[0, 0, 0])
        single = without_each(log_prior(given[:, :1]), told[:, :1], mask)
        torch.testing.assert_close(single[0, 0], told[0, 0])


def test_attention_worth_by_hand() -> None:
    """One layer, two heads, two tokens of which one is padding, two passages of two tokens."""
    attention = torch.zeros(1, 1, 2, 2, 2, 2)
    attention[0, 0, 0, 0] = torch.tensor([[0.5, 0.1], [0.2, 0.2]])
    attention[0, 0, 1, 0] = torch.tensor([[0.1, 0.1], [0.4, 0.4]])
    attention[0, 0, :, 1] = 9.0  # padding of the target
    norms = torch.tensor([[1.0, 7.0], [2.0, 1.0]]).expand(1, 1, 2, 2, 2)
    tokens = torch.tensor([[[True, False], [True, True]]])
    worth = attention_worth(attention, norms, torch.tensor([[True, False]]), tokens, divisor=1.0)
    first = (0.5 + 0.1) / 2 * 1.0
    second = ((0.2 + 0.4) * 2.0 + (0.2 + 0.4) * 1.0) / 2
    torch.testing.assert_close(worth, torch.tensor([[first, second]]))


def test_attention_worth_of_twice_the_layers_and_tokens_is_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    attention = torch.rand(1, 2, 3, 1, 2, 4, generator=generator)
    norms = torch.rand(1, 2, 3, 2, 4, generator=generator)
    tokens, mask = torch.ones(2, 2, 4, dtype=torch.bool), torch.ones(2, 1, dtype=torch.bool)
    twice = attention.repeat(2, 1, 1, 2, 1, 1), norms.repeat(2, 1, 1, 1, 1)
    torch.testing.assert_close(
        attention_worth(*twice, mask.repeat(1, 2), tokens),
        attention_worth(attention, norms, mask, tokens),
    )
