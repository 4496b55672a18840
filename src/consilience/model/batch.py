"""A batch of questions with their passages, and everything that can be wrong with one.

Checked before anything is computed: a wrong id would otherwise end as an index error deep in an
embedding, or worse, as a loss that looks like a loss.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from consilience.errors import UsageError
from consilience.generation import TokenRows
from consilience.model.fusion import FUSIONS, SUMMED, Fusion

IGNORED = -100
"""The label of padding."""


@dataclass(frozen=True, slots=True)
class RagBatch:
    """What `RagModel.forward` is given; see there."""

    question_ids: Tensor | None = None
    question_mask: Tensor | None = None
    context_ids: Tensor | None = None
    context_mask: Tensor | None = None
    passage_ids: Tensor | None = None
    passage_mask: Tensor | None = None
    passage_vectors: Tensor | None = None
    scores: Tensor | None = None
    labels: Tensor | None = None

    def questions(self) -> TokenRows:
        """The questions as rows, `[b, q]`."""
        ids = needed(self.question_ids, "question_ids")
        return TokenRows(ids, mask_of(ids, self.question_mask))

    def passages(self) -> TokenRows:
        """The passages as rows, `[b, k, p]`."""
        ids = needed(self.passage_ids, "passage_ids")
        return TokenRows(ids, mask_of(ids, self.passage_mask))

    def contexts(self) -> TokenRows:
        """The generator's rows, `[b, k, l]`."""
        ids = needed(self.context_ids, "context_ids")
        return TokenRows(ids, mask_of(ids, self.context_mask))


def mask_of(ids: Tensor, mask: Tensor | None) -> Tensor:
    """The mask as booleans; without one every id is a token."""
    return torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()


def needed(given: Tensor | None, name: str) -> Tensor:
    """A tensor that this call cannot do without.

    Raises:
        UsageError: It was not given.
    """
    if given is None:
        raise UsageError(f"{name} was not given", hint=f"RagModel.forward(…, {name}=…)")
    return given


def spread(values: Tensor, there: Tensor) -> Tensor:
    """Rows that were read back to their places, zeros elsewhere: `[rows, …]` to `[b, k, …]`."""
    if bool(there.all()):
        return values.view(*there.shape, *values.shape[1:])
    whole = values.new_zeros(*there.shape, *values.shape[1:])
    whole[there] = values
    return whole


def check_fusion(fusion: str) -> None:
    """Raise a UsageError unless the fusion is one of the table."""
    if fusion not in FUSIONS:
        raise UsageError(f"unknown fusion {fusion!r}", hint=f"choose one of: {', '.join(FUSIONS)}")


def check_smoothing(strength: float) -> None:
    """Raise a UsageError unless the strength is from 0 up to, not including, 1."""
    if not 0 <= strength < 1:
        raise UsageError(
            f"label_smoothing must be at least 0 and below 1, received {strength}",
            hint="0.1 is customary; leave it out for none",
        )


def check_scores(scores: Tensor) -> None:
    """Scores are `[b, k]` numbers, and each question has a passage.

    Raises:
        UsageError: They are not; which question, is said.
    """
    if scores.dim() != 2 or scores.shape[1] == 0:
        raise UsageError(
            f"scores must be [questions, passages], received {list(scores.shape)}",
            hint="every question needs at least one passage",
        )
    for row in _first(scores.isnan().any(-1) | (scores == float("inf")).any(-1)):
        raise UsageError(
            f"the scores of question {row[0]} are not numbers (NaN or infinite)",
            hint="look at the retriever: its vectors may hold NaN",
        )
    for row in _first((scores == float("-inf")).all(-1)):
        raise UsageError(f"question {row[0]} has no passage", hint="leave it out of the batch")


def check_contexts(rows: TokenRows, present: Tensor, fusion: Fusion, vocabulary: int) -> None:
    """The generator's rows fit the passages and the vocabulary.

    Args:
        rows: `[b, k, l]`, or `[b, 1, l]` for the fusions that have one row a question.
        present: True where there is a passage, `[b, k]`.
        fusion: Which decides how many rows there must be.
        vocabulary: How many ids the generator has.

    Raises:
        UsageError: They do not.
    """
    passages = present.shape[1] if fusion in SUMMED or fusion == "fid" else 1
    expected = (present.shape[0], passages)
    if rows.ids.dim() != 3 or tuple(rows.ids.shape[:2]) != expected:
        raise UsageError(
            f"context_ids must be [{expected[0]}, {expected[1]}, length] for the fusion {fusion}, "
            f"received {list(rows.ids.shape)}",
            hint="one row for each passage of each question"
            if passages > 1
            else f"one row for each question; {fusion} reads them in one row",
        )
    outside = (rows.ids < 0) | (rows.ids >= vocabulary)
    for question, passage, place in _first(outside & rows.mask):
        raise UsageError(
            f"context_ids of question {question}, passage {passage} hold the id "
            f"{int(rows.ids[question, passage, place])}; the generator's vocabulary has "
            f"{vocabulary} ids",
            hint="make them with the generator's own tokenizer",
        )


def check_labels(labels: Tensor, questions: int, vocabulary: int) -> None:
    """Labels are `[b, t]`, in the vocabulary or -100, and each row holds a token.

    Raises:
        UsageError: They are not; which question, is said.
    """
    if labels.dim() != 2 or labels.shape[0] != questions:
        raise UsageError(
            f"labels must be [{questions}, length], received {list(labels.shape)}",
            hint="one answer for each question, padded with -100",
        )
    outside = ((labels < 0) | (labels >= vocabulary)) & (labels != IGNORED)
    for question, place in _first(outside):
        raise UsageError(
            f"the labels of question {question} hold the id {int(labels[question, place])}; "
            f"the generator's vocabulary has {vocabulary} ids",
            hint="make them with the generator's own tokenizer, and pad them with -100",
        )
    for row in _first((labels == IGNORED).all(-1)):
        raise UsageError(
            f"the labels of question {row[0]} hold no token",
            hint="an answer has at least its end token",
        )


def _first(wrong: Tensor) -> list[list[int]]:
    """The place of the first true element, as a list of at most one place."""
    if not bool(wrong.any()):
        return []
    return wrong.nonzero()[:1].tolist()
