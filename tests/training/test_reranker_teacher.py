from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from consilience.documents import Passage
from consilience.encoding import load_encoder
from consilience.errors import UsageError
from consilience.model.vectors import CompactVectors
from consilience.questions import Context
from consilience.retrieval.reranking import Scores
from consilience.training.objectives import kl_distillation, margin_mse
from consilience.training.reranker_teacher import teacher_scores
from tests.tiny import write_tiny_model


class Counting:
    """Likes passages by how many of the question's words they hold."""

    def score(self, question: str, passages: Sequence[Passage]) -> Scores:
        words = question.split()
        return np.array([sum(w in p.text.split() for w in words) for p in passages], np.float32)


def context(text: str) -> Context:
    return Context(text, "", text)


QUESTIONS = ["visit hours", "bank card", "exam fee"]
TEXTS = ["the visit hours is 3", "the bank card", "the exam fee", "the bank hours"]


def test_scores_are_brought_to_one_scale_and_padded() -> None:
    passages = [list(map(context, TEXTS)), [context(TEXTS[0])], []]
    found = teacher_scores(Counting(), QUESTIONS, passages)
    raw = torch.tensor([2.0, 0.0, 0.0, 1.0])
    expected = (raw - raw.mean()) / raw.std(correction=0)
    torch.testing.assert_close(found[0], expected)
    assert found[1].tolist() == [0.0, *[float("-inf")] * 3]
    assert found[2].isneginf().all()
    assert not found.requires_grad


def test_each_question_needs_its_passages() -> None:
    with pytest.raises(UsageError, match=r"^3 questions with 1 lists of passages$"):
        teacher_scores(Counting(), QUESTIONS, [[]])


@pytest.mark.parametrize("objective", ["kl", "margin"])
def test_a_retriever_learns_the_order_of_its_teacher(tmp_path: Path, objective: str) -> None:
    encoder = load_encoder(write_tiny_model(tmp_path / "model", seed=1))
    vectors = CompactVectors(encoder)
    vectors.float().requires_grad_(True)
    passages = [list(map(context, TEXTS))] * len(QUESTIONS)
    taught = teacher_scores(Counting(), QUESTIONS, passages)
    optimiser = torch.optim.Adam(vectors.parameters(), lr=3e-3)
    before = {name: value.detach().clone() for name, value in vectors.named_parameters()}
    losses = []
    for _ in range(60):
        asked = vectors(*encoder.token_rows(QUESTIONS))
        told = vectors(*encoder.token_rows(TEXTS))
        scores = asked @ told.T / 0.1
        if objective == "kl":
            loss = kl_distillation(scores, taught / 0.5, mask=taught.isfinite())
        else:
            order = taught.argsort(dim=1, descending=True)
            loss = margin_mse(scores.gather(1, order), taught.gather(1, order))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 * losses[0]
    assert scores.argmax(1).tolist() == [0, 1, 2]
    moved = [name for name, value in vectors.named_parameters() if not value.equal(before[name])]
    assert any("layer.0" in name for name in moved)
