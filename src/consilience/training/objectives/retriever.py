"""Objectives of a retriever alone: tell right passages from wrong ones, or rank as a teacher does.

All of them take scores, never vectors, so a dot product, a cosine and a cross-encoder learn by the
same functions, and passages gathered from other devices are only more columns.

Dimensions: `b` questions, `p` passages of the whole batch, `k` passages of one question.
"""

import torch
from torch import Tensor

from consilience.model.fusion import exact
from consilience.training.objectives.reduction import divergence, mean_where, safe_log_softmax


def info_nce(
    scores: Tensor,
    positives: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    masked: Tensor | None = None,
    symmetric: bool = False,
) -> Tensor:
    """`-log softmax(s / T)[positive]`: the right passage against all others of the batch.

        L = -(1 / b) sum_i log( exp(s[i, i+] / T) / sum_j exp(s[i, j] / T) )

    Other questions' passages serve as negatives, hard negatives are more columns. With `symmetric`
    the mean is taken with the other direction: each positive passage against all questions.

    Use it for training an encoder from pairs; the larger the batch the better (`cached_gradients`
    makes it large in little memory). Do not use it where a question has several right passages and
    nothing masks them: it would push them apart.

    Source: van den Oord et al., 2018, "Representation Learning with Contrastive Predictive Coding";
    with hard negatives Karpukhin et al., 2020, "Dense Passage Retrieval"; symmetric as in Radford
    et al., 2021, "Learning Transferable Visual Models From Natural Language Supervision".

    Args:
        scores: Of every question with every passage, `[b, p]`.
        positives: The column of each question's right passage, `[b]`; a negative number leaves the
            question out.
        temperature: Above zero; may be a parameter that training moves.
        masked: True at passages that must not count as negatives, `[b, p]`; the right one always
            counts. See `false_negative_mask`.
        symmetric: Whether questions are told apart, too.

    Returns:
        The mean over questions, in nats; zero, without gradient, when none has a positive.

    Example:
        >>> float(info_nce(torch.zeros(2, 4), torch.tensor([0, 1])))  # log 4
        1.3862943649291992
    """
    logits = exact(scores) / temperature
    kept, columns = positives >= 0, positives.clamp_min(0)
    own = torch.nn.functional.one_hot(columns, scores.shape[1]).bool()  # [b, p]
    wrong = torch.zeros_like(own) if masked is None else masked & ~own
    told = logits.masked_fill(wrong, float("-inf")).log_softmax(-1)
    forward = mean_where(-told.gather(1, columns[:, None])[:, 0], kept)
    if not symmetric:
        return forward
    return (forward + _questions_told_apart(logits, columns, kept, wrong)) / 2


def _questions_told_apart(logits: Tensor, columns: Tensor, kept: Tensor, wrong: Tensor) -> Tensor:
    """Each positive passage against the questions for which it would be wrong."""
    of_positives = logits[:, columns]  # [b questions, b positives]
    same = columns[:, None] == columns[None, :]
    wrong = (wrong[:, columns] | same | ~kept[:, None]).fill_diagonal_(False)
    told = of_positives.masked_fill(wrong, float("-inf")).log_softmax(0)
    return mean_where(-told.diagonal(), kept)


def false_negative_mask(
    groups: Tensor,
    positives: Tensor,
    *,
    scores: Tensor | None = None,
    margin: float = 0.0,
) -> Tensor:
    """Which passages of a batch would be taken for wrong although they are right.

    Those of the same group as the right passage: the same passage drawn twice, passages of one
    document, whatever the caller numbers alike. With `scores` also those that score above the right
    one less `margin`; the better the retriever, the surer such a passage is an unlabelled answer
    (Qu et al., 2021, "RocketQA"; with a margin Moreira et al., 2024, "NV-Retriever").

    Args:
        groups: A number for each passage, `[p]`.
        positives: The column of each question's right passage, `[b]`; negative for none.
        scores: Of a retriever or a teacher, `[b, p]`.
        margin: How far below the right passage's score the mask begins.

    Returns:
        True at what `info_nce` should leave out, never at the right passage itself, `[b, p]`.

    Example:
        >>> false_negative_mask(torch.tensor([5, 6, 5]), torch.tensor([0, 1])).tolist()
        [[False, False, True], [False, False, False]]
    """
    kept, columns = positives >= 0, positives.clamp_min(0)
    found = groups[columns][:, None] == groups[None, :]  # [b, p]
    if scores is not None:
        right = scores.gather(1, columns[:, None])
        found = found | (scores > right - margin)
    own = torch.nn.functional.one_hot(columns, groups.shape[0]).bool()
    return found & ~own & kept[:, None]


def margin_mse(student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """`((s+ - s-) - (t+ - t-))^2`: the distances between passages as a teacher sees them.

    Only differences count, so teacher and student may score on different levels, but not on
    different scales.

    Use it for learning from a cross-encoder. Do not use it when the teacher's scores are
    probabilities: `kl_distillation` takes those.

    Source: Hofstätter et al., 2020, "Improving Efficient Neural Ranking Models with Cross-
    Architecture Knowledge Distillation".

    Args:
        student: The right passage's score first, then those of wrong ones, `[b, 1 + n]`.
        teacher: The same of the teacher; no gradient reaches it, `[b, 1 + n]`.
        mask: True at passages that are there, `[b, 1 + n]`; all by default.

    Returns:
        The mean over all pairs of a right and a wrong passage; zero when there is none.

    Example:
        >>> float(margin_mse(torch.tensor([[3.0, 1.0]]), torch.tensor([[9.0, 8.0]])))
        1.0
    """
    there = torch.ones_like(student, dtype=torch.bool) if mask is None else mask
    errors = _margins(student) - _margins(teacher.detach())
    return mean_where(errors.square(), there[:, 1:] & there[:, :1])


def _margins(scores: Tensor) -> Tensor:
    return exact(scores[:, :1]) - exact(scores[:, 1:])


def kl_distillation(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 1.0,
    mask: Tensor | None = None,
) -> Tensor:
    """`T^2 KL(softmax(t / T) || softmax(s / T))`: the teacher's ranking as a distribution.

    The factor keeps gradients of one size whatever the temperature (Hinton et al., 2015).

    Use it with several passages a question and a teacher that orders them well. Do not use it with
    one passage: there is nothing to order, and the loss is zero.

    Source: Hinton et al., 2015, "Distilling the Knowledge in a Neural Network"; for retrieval Lin
    et al., 2021, "In-Batch Negatives for Knowledge Distillation with Tightly-Coupled Teachers".

    Args:
        student: Scores, `[b, k]`.
        teacher: Scores of the teacher; no gradient reaches it, `[b, k]`.
        temperature: Above zero; the higher, the more the lower ranks count.
        mask: True at passages that are there, `[b, k]`; all by default.

    Returns:
        The mean over questions that have a passage, in nats.

    Example:
        >>> float(kl_distillation(torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0, 5.0]])))
        0.0
    """
    there = torch.ones_like(student, dtype=torch.bool) if mask is None else mask
    told = safe_log_softmax(exact(student) / temperature, there)
    wanted = safe_log_softmax(exact(teacher.detach()) / temperature, there)
    losses = divergence(wanted.exp() * there, told)
    return temperature**2 * mean_where(losses, there.any(-1))
