import pytest
import torch

from consilience.generation import Pair
from consilience.model.fusion import (
    SUMMED,
    Fusion,
    answer_posterior,
    log_likelihood,
    log_prior,
    marginal,
    mean_over_tokens,
    smoothing,
    step_weights,
    token_posterior,
    token_posteriors,
)
from tests.model.tables import TableGenerator

SUMS = sorted(SUMMED)
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


@pytest.mark.parametrize("fusion", SUMS)
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


@pytest.mark.parametrize("fusion", SUMS)
def test_an_answer_of_one_token_moves_the_prior(fusion: Fusion) -> None:
    scores = SCORES.clone().requires_grad_()
    probs = torch.tensor([[[-0.1], [-3.0], [-5.0]]])
    mask = torch.ones(1, 1, dtype=torch.bool)
    log_likelihood(log_prior(scores), probs, mask, fusion=fusion).sum().backward()
    assert scores.grad is not None
    assert scores.grad[0, 0] > 0.1
    assert scores.grad[0, 2] < -0.05


@pytest.mark.parametrize("fusion", SUMS)
def test_gradients_agree_with_finite_differences(fusion: Fusion) -> None:
    words = torch.randn(2, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    scores = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)

    def value(scores: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        return log_likelihood(
            log_prior(scores), words.log_softmax(-1)[..., 2], mask, fusion=fusion
        ).sum()

    assert torch.autograd.gradcheck(value, (scores, words))


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
    for fusion in SUMS:
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
    for fusion in SUMS:
        total = answer_posterior(weights, probs, mask, fusion=fusion).sum(-1)
        torch.testing.assert_close(total, torch.ones(2))
    tokens = token_posterior(weights[..., None], probs)
    torch.testing.assert_close(tokens.exp().sum(1), torch.ones(2, 5))


@pytest.mark.parametrize("fusion", SUMS)
@pytest.mark.parametrize("length", [1, 3])
def test_gradient_of_the_loss_is_prior_minus_posterior(fusion: Fusion, length: int) -> None:
    """For a sum over tokens, the same at every token."""
    scores = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    log_probs = torch.randn(4, 3, length, dtype=torch.float64).log_softmax(1)
    mask = torch.ones(4, length, dtype=torch.bool)
    weights = log_prior(scores)
    (-log_likelihood(weights, log_probs, mask, fusion=fusion)).sum().backward()
    times = 1 if fusion == "sequence" else length
    posterior = answer_posterior(weights, log_probs, mask, fusion=fusion)
    expected = times * (weights.exp() - posterior)
    torch.testing.assert_close(scores.grad, expected.detach())


def test_one_token_answers_have_the_posterior_of_bayes() -> None:
    prior, likelihood = torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[[0.1], [0.4], [0.2]]])
    mask = torch.ones(1, 1, dtype=torch.bool)
    expected = torch.tensor([[0.05, 0.12, 0.04]]) / 0.21
    for fusion in SUMS:
        found = answer_posterior(prior.log(), likelihood.log(), mask, fusion=fusion)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("fusion", SUMS)
def test_steps_multiply_to_the_answer(fusion: Fusion) -> None:
    weights = log_prior(torch.randn(2, 3))
    log_probs = torch.randn(2, 3, 5).log_softmax(1) - 1
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    kept = log_probs * mask[:, None, :]
    steps = (step_weights(weights, kept, fusion=fusion) + kept).logsumexp(1) * mask
    torch.testing.assert_close(
        steps.sum(-1), log_likelihood(weights, log_probs, mask, fusion=fusion)
    )


def test_posteriors_of_tokens() -> None:
    """Under RAG-Sequence the last token's is the answer's; elsewhere the answer's is their mean."""
    weights = log_prior(torch.randn(2, 3))
    log_probs = torch.randn(2, 3, 5).log_softmax(1)
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    for fusion in SUMS:
        tokens = token_posteriors(weights, log_probs, mask, fusion=fusion)
        torch.testing.assert_close(tokens.sum(1), mask.float())
        whole = answer_posterior(weights, log_probs, mask, fusion=fusion)
        if fusion == "sequence":
            last = torch.stack([tokens[0, :, 4], tokens[1, :, 1]])
            torch.testing.assert_close(whole, last)
        else:
            torch.testing.assert_close(whole, mean_over_tokens(tokens, mask))


def test_the_average_is_the_sum_over_tokens_with_other_weights() -> None:
    log_probs, mask = torch.randn(1, 3, 4).log_softmax(1), torch.ones(1, 4, dtype=torch.bool)
    weights = torch.tensor([[0.6, 0.3, 0.1]]).log()
    expected = (log_probs.exp() * weights.exp()[..., None]).sum(1).log().sum(-1)
    torch.testing.assert_close(log_likelihood(weights, log_probs, mask, fusion="average"), expected)


class TestSmoothing:
    words = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    mask = torch.tensor([[True] * 4, [True] * 2 + [False] * 2])

    def extra(self, fusion: Fusion, k: int = 3) -> torch.Tensor:
        words = self.words[:, :k]
        weights = log_prior(torch.tensor([[1.0, 0.2, -0.5], [0.0, 2.0, 1.0]])[:, :k])
        return smoothing(weights, words[..., 2], words, self.mask, fusion=fusion)

    @pytest.mark.parametrize("fusion", SUMS)
    def test_with_one_passage_it_is_that_of_cross_entropy(self, fusion: Fusion) -> None:
        plain = -(self.words[:, 0, :, 2] * self.mask).sum(-1)
        target = torch.where(self.mask, 2, -100)
        smoothed = torch.nn.functional.cross_entropy(
            self.words[:, 0].transpose(1, 2), target, label_smoothing=0.1, reduction="none"
        ).sum(-1)
        torch.testing.assert_close(plain + 0.1 * self.extra(fusion, k=1), smoothed)

    def test_of_a_sum_over_tokens_it_is_that_of_the_marginal(self) -> None:
        weights = log_prior(torch.tensor([[1.0, 0.2, -0.5], [0.0, 2.0, 1.0]]))
        summed = (self.words.exp() * weights.exp()[..., None, None]).sum(1).log()
        uniform = -(summed.mean(-1) * self.mask).sum(-1)
        plain = -(summed[..., 2] * self.mask).sum(-1)
        torch.testing.assert_close(self.extra("token"), uniform - plain)

    def test_of_whole_answers_it_is_that_of_each_passage_under_the_posterior(self) -> None:
        weights = log_prior(torch.tensor([[1.0, 0.2, -0.5], [0.0, 2.0, 1.0]]))
        posterior = answer_posterior(weights, self.words[..., 2], self.mask, fusion="sequence")
        each = ((self.words[..., 2] - self.words.mean(-1)) * self.mask[:, None]).sum(-1)
        torch.testing.assert_close(self.extra("sequence"), (posterior * each).sum(-1))

    def test_the_prior_is_not_smoothed(self) -> None:
        scores = torch.randn(2, 3, requires_grad=True)
        smoothing(
            log_prior(scores),
            self.words[..., 2].clone().requires_grad_(),
            self.words,
            self.mask,
            fusion="sequence",
        ).sum().backward()
        assert scores.grad is None or float(scores.grad.abs().max()) == 0.0
