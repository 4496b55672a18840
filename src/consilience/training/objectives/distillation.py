"""A small model taught the sum of a large one: its words, its posterior, its inner states.

Teacher and student may have different passages, fusions and sizes; what they must share is the
vocabulary for `distil_sum` and the passages for `distil_posterior`. No gradient reaches a teacher.

Dimensions: `b` questions, `k` passages, `t` tokens, `v` vocabulary, `h` and `g` the sizes of the
student's and the teacher's states.
"""

from typing import Literal

import torch
from torch import Tensor

from consilience.errors import UsageError
from consilience.model.fusion import exact
from consilience.training.objectives.reduction import divergence, mean_where, safe_log_softmax

Likeness = Literal["cosine", "mse"]


def distil_sum(
    student: Tensor, teacher: Tensor, mask: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """`T^2 KL(softmax(z_teacher / T) || softmax(z_student / T))` at every token of the sum.

    The marginal distributions are compared, after the sum over passages: a student with other
    passages, fewer of them or none learns to say what the teacher says having read its own.

    Use it with answers of the data or, better, with answers that the teacher sampled (Kim and Rush,
    2016, "Sequence-Level Knowledge Distillation"). Do not use it across tokenizers.

    Source: Hinton et al., 2015, "Distilling the Knowledge in a Neural Network".

    Args:
        student: Logits, or log p, of the sum, `[b, t, v]`.
        teacher: The same of the teacher, `[b, t, v]`.
        mask: True at tokens, `[b, t]`.
        temperature: Above zero; above 1 the teacher's second choices count more.

    Returns:
        The mean over tokens, in nats.

    Raises:
        UsageError: The vocabularies differ in size.

    Example:
        >>> logits = torch.tensor([[[2.0, 0.0]]])
        >>> abs(distil_sum(logits + 3, logits, torch.tensor([[True]])).item()) < 1e-6
        True
    """
    if student.shape != teacher.shape:
        raise UsageError(
            f"the student's logits are {list(student.shape)} and the teacher's "
            f"{list(teacher.shape)}",
            hint="Teacher and student need one tokenizer and the same target.",
        )
    told = (exact(student) / temperature).log_softmax(-1)
    wanted = (exact(teacher.detach()) / temperature).log_softmax(-1)
    losses = divergence(wanted.exp(), told.clamp_min(torch.finfo(told.dtype).min))
    return temperature**2 * mean_where(losses, mask)


def distil_posterior(student: Tensor, posterior: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """`KL(posterior of the teacher || distribution of the student)` over the passages.

    With the student's scores it teaches a retriever to propose what the teacher's answer came from
    before there is an answer; with the log of the student's own posterior it teaches a generator to
    rest on the same passages.

    Source: the posterior of Lewis et al., 2020, as the target of Hinton et al., 2015.

    Args:
        student: Scores, or log posterior, `[b, k]`.
        posterior: p(d | x, y) of the teacher over the same passages, `[b, k]`.
        mask: True at passages that are there, `[b, k]`; all by default. What the teacher gave to
            others is shared out among them.

    Returns:
        The mean over questions that have a passage with a share, in nats.

    Example:
        >>> posterior = torch.tensor([[0.75, 0.25]])
        >>> abs(distil_posterior(posterior.log(), posterior).item()) < 1e-6
        True
    """
    there = torch.ones_like(student, dtype=torch.bool) if mask is None else mask
    shares = exact(posterior.detach()).masked_fill(~there, 0.0)
    totals = shares.sum(-1, keepdim=True)
    target = shares / totals.clamp_min(torch.finfo(shares.dtype).tiny)
    losses = divergence(target, safe_log_softmax(exact(student), there))
    return mean_where(losses, totals[:, 0] > 0)


def distil_states(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    projection: Tensor | None = None,
    likeness: Likeness = "cosine",
) -> Tensor:
    """Hidden states of the student drawn to the teacher's, token by token.

        cosine:  1 - <W s, t> / (|W s| |t|)
        mse:     |W s - t|^2 / g

    Use `cosine` between models of different widths or norms, `mse` between a model and its smaller
    copy. Do not use it across tokenizers: tokens must stand at the same places.

    Source: Sanh et al., 2019, "DistilBERT" (cosine); Jiao et al., 2020, "TinyBERT", section 3.2
    (squared distance through a learned projection).

    Args:
        student: `[b, t, h]`.
        teacher: `[b, t, g]`.
        mask: True at tokens, `[b, t]`.
        projection: W, learned, `[h, g]`; not needed where h = g.
        likeness: `cosine` or `mse`.

    Returns:
        The mean over tokens.

    Raises:
        UsageError: The sizes differ and no projection fits them.
    """
    own = exact(student) if projection is None else exact(student) @ exact(projection)
    if own.shape != teacher.shape:
        raise UsageError(
            f"the student's states are {list(own.shape)} and the teacher's {list(teacher.shape)}",
            hint=f"Give projection, a parameter of [{student.shape[-1]}, {teacher.shape[-1]}].",
        )
    wanted = exact(teacher.detach())
    if likeness == "mse":
        return mean_where((own - wanted).square().mean(-1), mask)
    return mean_where(1 - torch.nn.functional.cosine_similarity(own, wanted, dim=-1), mask)
