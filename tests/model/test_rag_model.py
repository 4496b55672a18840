import pytest
import torch

from consilience.encoding.folder import open_folder
from consilience.errors import UsageError
from consilience.generation import CompactGenerator
from consilience.generation.compact import build_generator
from consilience.model import RagModel
from consilience.model.fusion import FUSIONS, Fusion, log_prior
from tests.tiny import write_tiny_model

QUESTIONS = ["what is the fee", "门诊时间"]
PASSAGES = [["the fee is 9", "the ward", "a card"], ["时间是上午", "考试", "费用"]]
ANSWERS = ["9", "上午"]


@pytest.fixture
def model(tmp_path_factory: pytest.TempPathFactory) -> RagModel:
    folder = open_folder(write_tiny_model(tmp_path_factory.mktemp("model")))
    generator = build_generator(folder, folder.tensors()).float()
    return RagModel(generator.requires_grad_(True), temperature=0.5)


def padded(generator: CompactGenerator, texts: list[str], value: int) -> torch.Tensor:
    ids = [one.ids for one in generator.tokens.encode(texts)]
    length = max(map(len, ids)) + 2
    return torch.tensor([[*one, *[value] * (length - len(one))] for one in ids])


def batch(model: RagModel) -> dict[str, torch.Tensor]:
    generator = model.generator
    passages = padded(generator, [p for row in PASSAGES for p in row], generator.tokens.pad)
    ids = [[*one.ids, generator.end] for one in generator.tokens.encode(ANSWERS)]
    length = max(map(len, ids))
    return {
        "question_ids": padded(generator, QUESTIONS, generator.tokens.pad),
        "passage_ids": passages.view(2, 3, -1),
        "scores": torch.tensor([[0.9, 0.3, 0.1], [0.2, 0.8, 0.4]]),
        "labels": torch.tensor([[*one, *[-100] * (length - len(one))] for one in ids]),
    }


@pytest.mark.parametrize("fusion", FUSIONS)
def test_loss_is_the_mean_over_questions_alone(model: RagModel, fusion: Fusion) -> None:
    inputs = batch(model)
    together = model(**inputs, fusion=fusion)
    alone = [
        model(**{k: v[i : i + 1] for k, v in inputs.items()}, fusion=fusion).loss for i in (0, 1)
    ]
    torch.testing.assert_close(together.loss, torch.stack(alone).mean(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together.posterior.sum(-1), torch.ones(2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_gradient_reaches_every_part(model: RagModel, fusion: Fusion) -> None:
    inputs = batch(model)
    inputs["scores"].requires_grad_()
    model(**inputs, fusion=fusion).loss.backward()
    assert inputs["scores"].grad is not None
    assert float(inputs["scores"].grad.abs().min()) > 0
    assert model.log_temperature.grad is not None
    assert float(model.log_temperature.grad.abs()) > 0
    still = [name for name, p in model.named_parameters() if p.grad is None]
    assert still == []


def test_training_moves_the_prior_to_the_passage_that_answers(model: RagModel) -> None:
    inputs = batch(model)
    scores = torch.zeros(2, 3, requires_grad=True)
    optimiser = torch.optim.Adam([scores, *model.parameters()], lr=1e-2)
    first = None
    for _ in range(80):
        output = model(**(inputs | {"scores": scores}))
        first = first or output.loss.item()
        optimiser.zero_grad()
        output.loss.backward()
        optimiser.step()
    assert output.loss.item() < 0.2 * first
    posterior = output.posterior[0]
    assert log_prior(scores)[0].argmax() == posterior.argmax()


def test_logits_are_a_distribution_and_agree_with_the_token_sum(model: RagModel) -> None:
    inputs = batch(model)
    output = model(**inputs, fusion="token", return_logits=True)
    assert output.logits is not None
    torch.testing.assert_close(output.logits.exp().sum(-1), torch.ones(2, 3), atol=1e-5, rtol=1e-5)
    labels = inputs["labels"]
    mask = labels >= 0
    chosen = output.logits.gather(-1, labels.clamp_min(0)[..., None])[..., 0]
    torch.testing.assert_close((chosen * mask).sum(-1), output.log_likelihood, atol=1e-4, rtol=1e-4)


def test_without_labels_only_the_prior(model: RagModel) -> None:
    inputs = batch(model)
    inputs.pop("labels")
    output = model(**inputs)
    torch.testing.assert_close(output.log_prior, log_prior(inputs["scores"], 0.5))
    assert output.loss is None


def test_scores_that_are_no_numbers_are_named(model: RagModel) -> None:
    inputs = batch(model)
    inputs["scores"][1, 2] = float("nan")
    with pytest.raises(UsageError, match="scores of question 1 are not numbers"):
        model(**inputs)


def test_a_question_without_passages_is_refused(model: RagModel) -> None:
    inputs = batch(model)
    inputs["scores"][0] = float("-inf")
    with pytest.raises(UsageError, match="has no passage"):
        model(**inputs)


def test_an_unknown_fusion_is_refused(model: RagModel) -> None:
    with pytest.raises(UsageError, match="unknown fusion 'sum'") as caught:
        model(**batch(model), fusion="sum")
    assert "sequence, token" in caught.value.hint
