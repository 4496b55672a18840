"""Attention over passage vectors: what it computes, and that a generator learns to use it."""

import pytest
import torch
from torch import Tensor

from consilience.errors import UsageError
from consilience.model import AttentionFusion, PooledEncoder, RagModel
from tests.model.small import GENERATORS, SIZE, WORDS, compact, dpr, gpt2

KINDS = ["bart", "gpt2"]


def blind(b: int = 4) -> dict[str, Tensor]:
    """Questions that are all alike with answers that differ: only the vectors can tell."""
    labels = torch.tensor([[10, 2], [11, 2], [12, 2], [13, 2]])[:b]
    return {"context_ids": torch.tensor([[[5, 6, 7]]]).expand(b, 1, 3), "labels": labels}


def told(b: int = 4) -> Tensor:
    """Two vectors a question: one that says which it is, one that says nothing."""
    torch.manual_seed(2)
    return torch.stack([torch.randn(b, SIZE), torch.randn(1, SIZE).expand(b, SIZE)], dim=1)


def model_of(kind: str) -> RagModel:
    generator = GENERATORS[kind]()
    torch.manual_seed(1)
    return RagModel(generator, attention=AttentionFusion(16, SIZE)).eval()


def test_it_is_the_formula() -> None:
    fusion = AttentionFusion(16, SIZE)
    torch.nn.init.normal_(fusion.project.weight)
    states, vectors = torch.randn(1, 3, 16), torch.randn(1, 2, SIZE)
    looking = fusion.over(vectors, torch.ones(1, 2, dtype=torch.bool))
    found = looking(states)
    for place in range(3):
        h = states[0, place]
        scores = torch.stack([h @ fusion.compare.weight @ d for d in vectors[0]])
        alpha = scores.softmax(0)
        torch.testing.assert_close(looking.shares[0, place], alpha)
        seen = alpha[0] * vectors[0, 0] + alpha[1] * vectors[0, 1]
        torch.testing.assert_close(found[0, place], h + fusion.project.weight @ seen)


@pytest.mark.parametrize("kind", KINDS)
def test_an_untrained_fusion_leaves_the_generator_as_it_was(kind: str) -> None:
    model = model_of(kind)
    found = model(**blind(), passage_vectors=told(), fusion="attention")
    alone = model(**blind(), fusion="concat")
    torch.testing.assert_close(found.loss, alone.loss)


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_what_only_the_vectors_tell(kind: str) -> None:
    model, vectors = model_of(kind), told()
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(100):
        found = model(**blind(), passage_vectors=vectors, fusion="attention")
        optimiser.zero_grad()
        found.loss.backward()
        optimiser.step()
    # Without vectors the best is a guess among four, log 4 = 1.39 nats.
    assert float(found.loss.detach()) < 0.2
    swapped = model(**blind(), passage_vectors=vectors.flip(0), fusion="attention")
    assert float(swapped.loss.detach()) > 1.0
    assert float(found.token_posterior[:, 0, 0].detach().min()) > 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_shares_are_attention_over_the_passages_that_are_there(kind: str) -> None:
    model, inputs = model_of(kind), blind()
    inputs["labels"] = inputs["labels"].clone()
    inputs["labels"][1, 1] = -100
    scores = torch.zeros(4, 2)
    scores[2, 1] = float("-inf")
    found = model(**inputs, passage_vectors=told(), scores=scores, fusion="attention")
    mask = (inputs["labels"] >= 0).float()
    torch.testing.assert_close(found.token_posterior.sum(1), mask)
    torch.testing.assert_close(found.posterior.sum(-1), torch.ones(4))
    assert found.posterior[2].tolist() == [1.0, 0.0]


def test_the_gradient_reaches_the_encoder_of_passages() -> None:
    model = RagModel(
        gpt2(),
        passage_encoder=PooledEncoder(dpr()[1]),
        attention=AttentionFusion(16, SIZE),
    )
    torch.nn.init.normal_(model.attention.project.weight)
    ids = torch.randint(3, WORDS, (4, 2, 5))
    model(**blind(), passage_ids=ids, fusion="attention").loss.backward()
    for part in (model.attention, model.passage_encoder, model.generator):
        grads = [p.grad for p in part.parameters() if p.grad is not None]
        assert max(float(grad.abs().max()) for grad in grads) > 0


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(UsageError, match="this model has no attention"):
        RagModel(gpt2())(**blind(), passage_vectors=told(), fusion="attention")
    with pytest.raises(UsageError, match="passage_vectors was not given"):
        model_of("gpt2")(**blind(), fusion="attention")
    with pytest.raises(UsageError, match="built for vectors of 8 numbers, received vectors of 5"):
        model_of("gpt2")(**blind(), passage_vectors=told()[..., :5], fusion="attention")
    small = RagModel(compact(), attention=AttentionFusion(16, SIZE))
    with pytest.raises(UsageError, match="no input that passage vectors could be added to"):
        small(**blind(), passage_vectors=told(), fusion="attention")
