"""A reranker as the teacher of a retriever: what it thinks of the passages that were proposed.

The scores go into `objectives.margin_mse` or `objectives.kl_distillation` as they are. Rerankers
score on scales of their own; what a student can learn is their order and their distances.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from consilience.documents import Passage
from consilience.errors import UsageError
from consilience.questions import Context
from consilience.retrieval.reranking import Reranker, Scores, scores_of


def teacher_scores(
    reranker: Reranker, questions: Sequence[str], passages: Sequence[Sequence[Passage | Context]]
) -> Tensor:
    """What a reranker thinks of each question's passages, without a gradient.

    Brought to mean 0 and deviation 1 over the passages of a question, so that one temperature suits
    every reranker; where all are alike they are 0.

    Args:
        reranker: The teacher.
        questions: `b` of them.
        passages: Of each question, at most `k`.

    Returns:
        float32, `[b, k]`; minus infinity where a question has fewer passages than others. Mask
        these for the objective.

    Raises:
        UsageError: There are not as many lists of passages as questions.
    """
    if len(questions) != len(passages):
        raise UsageError(
            f"{len(questions)} questions with {len(passages)} lists of passages",
            hint="give each question its own list",
        )
    longest = max(map(len, passages), default=0)
    scores = torch.full((len(questions), longest), float("-inf"))
    for row, (question, own) in enumerate(zip(questions, passages, strict=True)):
        found = scores_of(reranker, question, [_as_passage(one) for one in own])
        scores[row, : len(own)] = torch.from_numpy(standardised(found))
    return scores


def standardised(scores: Scores) -> Scores:
    """Mean 0 and deviation 1, `[passages]`; 0 where all are alike."""
    if not len(scores):
        return scores
    spread = float(scores.std())
    found: Scores = (scores - scores.mean()) / (spread if spread > 0 else 1.0)
    return found


def _as_passage(one: Passage | Context) -> Passage:
    if isinstance(one, Passage):
        return one
    return Passage(one.id, one.text, one.title, "", None, 0, len(one.text))
