import pytest
import torch

from consilience.generation import Pair
from consilience.model.fusion import (
    FUSIONS,
    Fusion,
    answer_posterior,
    log_likelihood,
    log_prior,
    marginal,
    token_posterior,
)
from tests.model.tables import TableGenerator

PASSAGES = ["one", "two", "three"]
SCORES = torch.tensor([[1.0, 0.2, -0.5]])


def all_log_probs(generator: TableGenerator, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """log p of every answer's tokens given each passage `[answers, k, t]`, and their mask."""
    memory = generator.read([Pair("q", "", passage) for passage in PASSAGES])
    answers = list(generator.answers(most))
    probs, mask = (
        torch.zeros(len(answers), len(PASSAGES), most + 1),
        torch.zeros(len(answers), most + 1, dtype=torch.bool),
    )
    for index, ids in enumerate(answers):
        targets = torch.tensor([ids] * len(PASSAGES))
        probs[index, :, : len(ids)] = generator.score(memory, targets)
        mask[index, : len(ids)] = True
    return probs, mask


@pytest.mark.parametrize("fusion", FUSIONS)
def test_all_answers_together_are_certain(fusion: Fusion) -> None:
    """With the mass of the answers still open at the last step, the sum over answers is 1."""
    generator = TableGenerator(vocabulary=4)
    probs, mask = all_log_probs(generator, most=6)
    weights = log_prior(SCORES).expand(probs.shape[0], -1)
    total = log_likelihood(weights, probs, mask, fusion=fusion).exp().sum()
    still_open = open_mass(generator, fusion, length=7)
    assert float(total + still_open) == pytest.approx(1.0, abs=1e-5)


def open_mass(generator: TableGenerator, fusion: Fusion, length: int) -> torch.Tensor:
    """Probability of having written `length` tokens without an end."""
    memory = generator.read([Pair("q", "", passage) for passage in PASSAGES])
    prefixes = [ids[:-1] for ids in generator.answers(length) if len(ids) == length + 1]
    targets = [torch.tensor([ids] * len(PASSAGES)) for ids in prefixes]
    probs = torch.stack([generator.score(memory, one) for one in targets])
    mask = torch.ones(len(prefixes), length, dtype=torch.bool)
    weights = log_prior(SCORES).expand(len(prefixes), -1)
    return log_likelihood(weights, probs, mask, fusion=fusion).exp().sum()


def test_gradient_of_sequence_likelihood_is_posterior_minus_prior() -> None:
    scores = SCORES.clone().requires_grad_()
    probs = torch.randn(1, 3, 4).log_softmax(1)
    mask = torch.tensor([[True, True, True, False]])
    weights = log_prior(scores)
    log_likelihood(weights, probs, mask, fusion="sequence").sum().backward()
    posterior = answer_posterior(weights, probs, mask, fusion="sequence")
    assert scores.grad is not None
    torch.testing.assert_close(scores.grad, (posterior - weights.exp()).detach())


@pytest.mark.parametrize("fusion", FUSIONS)
def test_an_answer_of_one_token_moves_the_prior(fusion: Fusion) -> None:
    scores = SCORES.clone().requires_grad_()
    probs = torch.tensor([[[-0.1], [-3.0], [-5.0]]])
    mask = torch.ones(1, 1, dtype=torch.bool)
    log_likelihood(log_prior(scores), probs, mask, fusion=fusion).sum().backward()
    assert scores.grad is not None
    assert scores.grad[0, 0] > 0.1
    assert scores.grad[0, 2] < -0.05


def test_gradient_agrees_with_finite_differences() -> None:
    probs = torch.randn(2, 3, 4, dtype=torch.float64).log_softmax(1).float()
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    scores = torch.randn(2, 3, requires_grad=True)
    for fusion in FUSIONS:
        value = log_likelihood(log_prior(scores), probs, mask, fusion=fusion).sum()
        (gradient,) = torch.autograd.grad(value, scores)
        step = 1e-2
        nudged = scores.detach().clone()
        nudged[1, 2] += step
        up = log_likelihood(log_prior(nudged), probs, mask, fusion=fusion).sum()
        nudged[1, 2] -= 2 * step
        down = log_likelihood(log_prior(nudged), probs, mask, fusion=fusion).sum()
        assert float(gradient[1, 2]) == pytest.approx(float(up - down) / (2 * step), abs=2e-3)


def test_scores_of_half_precision_keep_their_order() -> None:
    scores = torch.tensor([[75.03, 74.50, 74.08]])
    assert log_prior(scores.bfloat16()).dtype is torch.float32
    prior = log_prior(scores)[0]
    assert prior[0] > prior[1] > prior[2]


def test_a_missing_passage_counts_nothing() -> None:
    probs = torch.randn(1, 3, 4).log_softmax(1)
    mask = torch.ones(1, 4, dtype=torch.bool)
    padded = log_prior(torch.tensor([[1.0, 0.2, float("-inf")]])).clamp_min(-1e9)
    short = log_prior(torch.tensor([[1.0, 0.2]]))
    for fusion in FUSIONS:
        torch.testing.assert_close(
            log_likelihood(padded, probs, mask, fusion=fusion),
            log_likelihood(short, probs[:, :2], mask, fusion=fusion),
        )
        assert float(answer_posterior(padded, probs, mask, fusion=fusion)[0, 2]) < 1e-6


def test_marginal_is_the_weighted_mean_of_distributions() -> None:
    weights = log_prior(torch.randn(2, 3))[..., None]
    probs = torch.randn(2, 3, 1, 6).log_softmax(-1)
    expected = (weights.exp()[..., None] * probs.exp()).sum(1)
    torch.testing.assert_close(marginal(weights, probs).exp(), expected)


def test_posteriors_are_distributions() -> None:
    weights = log_prior(torch.randn(2, 3))
    probs = torch.randn(2, 3, 5).log_softmax(1)
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    for fusion in FUSIONS:
        total = answer_posterior(weights, probs, mask, fusion=fusion).sum(-1)
        torch.testing.assert_close(total, torch.ones(2))
    tokens = token_posterior(weights[..., None], probs)
    torch.testing.assert_close(tokens.exp().sum(1), torch.ones(2, 5))
