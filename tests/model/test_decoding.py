import math

import pytest
import torch
from torch import Tensor

from consilience.generation import Pair
from consilience.model.decoding import Decoded, DecodingOptions, decode, pad_answers
from consilience.model.fusion import FUSIONS, Fusion, log_likelihood, log_prior
from tests.model.tables import TableGenerator

PASSAGES = ["one", "two", "three"]
SCORES = torch.tensor([[0.8, 0.2, -0.5]])
MOST = 3


def ask(
    generator: TableGenerator,
    questions: list[str],
    scores: Tensor = SCORES,
    **options: object,
) -> list[Decoded]:
    memory = generator.read([Pair(q, "", p) for q in questions for p in PASSAGES])
    weights = log_prior(scores.expand(len(questions), -1))
    how = DecodingOptions(**{"max_new_tokens": MOST} | options)  # type: ignore[arg-type]
    return decode(generator, memory, weights, options=how)


def truth(generator: TableGenerator, question: str, fusion: Fusion) -> dict[tuple[int, ...], float]:
    """log p of every answer, worked out one by one."""
    memory = generator.read([Pair(question, "", p) for p in PASSAGES])
    found = {}
    for ids in generator.answers(MOST):
        targets = torch.tensor([ids] * len(PASSAGES))
        probs = generator.score(memory, targets)[None]
        mask = torch.ones(1, len(ids), dtype=torch.bool)
        found[ids[:-1]] = float(log_likelihood(log_prior(SCORES), probs, mask, fusion=fusion))
    return found


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("question", ["who", "what", "when"])
def test_a_full_beam_finds_the_most_probable_answer(fusion: Fusion, question: str) -> None:
    generator = TableGenerator(vocabulary=7)
    everything = truth(generator, question, fusion)
    best = max(everything, key=everything.__getitem__)
    (found,) = ask(generator, [question], fusion=fusion, beams=200)
    assert tuple(found.ids) == best
    assert found.log_likelihood == pytest.approx(everything[best], abs=1e-4)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("beams", [1, 2, 4])
def test_the_score_is_the_true_log_likelihood(fusion: Fusion, beams: int) -> None:
    generator = TableGenerator(vocabulary=7)
    for question in ("who", "what", "how"):
        (found,) = ask(generator, [question], fusion=fusion, beams=beams)
        expected = truth(generator, question, fusion)[tuple(found.ids)]
        assert found.log_likelihood == pytest.approx(expected, abs=1e-4)


def test_greedy_takes_the_best_token_of_the_sum_at_every_step() -> None:
    generator = TableGenerator(vocabulary=7)
    (found,) = ask(generator, ["who"], fusion="token")
    weights = log_prior(SCORES)[0]
    memory = generator.read([Pair("who", "", p) for p in PASSAGES])
    prefix: tuple[int, ...] = ()
    for _ in range(MOST):
        rows = torch.stack([generator.distribution(row, prefix) for row in memory])
        token = int((rows + weights[:, None]).logsumexp(0).argmax())
        if token == generator.end:
            break
        prefix = (*prefix, token)
    assert tuple(found.ids) == prefix


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("beams", [1, 3])
def test_an_answer_does_not_depend_on_the_rest_of_the_batch(fusion: Fusion, beams: int) -> None:
    generator = TableGenerator(vocabulary=7)
    questions = ["who", "what", "when", "where"]
    together = ask(generator, questions, fusion=fusion, beams=beams)
    for question, one in zip(questions, together, strict=True):
        (alone,) = ask(generator, [question], fusion=fusion, beams=beams)
        assert alone.ids == one.ids
        assert alone.log_likelihood == pytest.approx(one.log_likelihood, abs=1e-5)
        torch.testing.assert_close(alone.posterior, one.posterior)


@pytest.mark.parametrize("most", [1, 2, 5])
def test_never_more_than_max_new_tokens(most: int) -> None:
    generator = TableGenerator(vocabulary=7)
    for found in ask(generator, ["who", "what", "when"], max_new_tokens=most, beams=2):
        assert len(found.ids) <= most


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_missing_passage_changes_nothing(fusion: Fusion) -> None:
    generator = TableGenerator(vocabulary=7)
    scores = torch.tensor([[0.8, 0.2, float("-inf")]])
    (padded,) = ask(generator, ["who"], scores, fusion=fusion, beams=2)
    memory = generator.read([Pair("who", "", p) for p in PASSAGES[:2]])
    how = DecodingOptions(fusion=fusion, beams=2, max_new_tokens=MOST)
    (short,) = decode(generator, memory, log_prior(scores[:, :2]), options=how)
    assert padded.ids == short.ids
    assert padded.log_likelihood == pytest.approx(short.log_likelihood, abs=1e-5)
    assert float(padded.posterior[2]) == pytest.approx(0.0, abs=1e-6)


def test_posteriors_follow_bayes() -> None:
    generator = TableGenerator(vocabulary=7)
    (found,) = ask(generator, ["who"], fusion="sequence", beams=4)
    memory = generator.read([Pair("who", "", p) for p in PASSAGES])
    targets = pad_answers([found.ids] * 3, end=generator.end)
    joint = log_prior(SCORES)[0] + generator.score(memory, targets).sum(-1)
    torch.testing.assert_close(found.posterior, joint.softmax(-1), atol=1e-5, rtol=1e-4)
    assert found.token_posteriors.shape == (len(found.ids), 3)
    torch.testing.assert_close(
        found.token_posteriors.sum(-1), torch.ones(len(found.ids)), atol=1e-5, rtol=1e-5
    )


def test_support_is_the_prior_mass_of_passages_that_hold_an_answer() -> None:
    generator = TableGenerator(vocabulary=7, none=True)
    (found,) = ask(generator, ["who"], fusion="sequence")
    memory = generator.read([Pair("who", "", p) for p in PASSAGES])
    none = torch.stack([generator.distribution(row, ())[2].exp() for row in memory])
    torch.testing.assert_close(found.supports, 1 - none, atol=1e-5, rtol=1e-4)
    assert found.support == pytest.approx(
        float((log_prior(SCORES)[0].exp() * (1 - none)).sum()), abs=1e-5
    )
    assert generator.none not in found.ids


def test_the_answer_is_searched_given_that_there_is_one() -> None:
    """p(y | x, y is an answer): the whole sum over answers divided by the support."""
    generator = TableGenerator(vocabulary=6, none=True)
    everything = truth(generator, "who", "sequence")
    (found,) = ask(generator, ["who"], fusion="sequence", beams=100)
    best = max(everything, key=everything.__getitem__)
    assert tuple(found.ids) == best
    expected = everything[best] - math.log(found.support)
    assert found.log_likelihood == pytest.approx(expected, abs=1e-4)
