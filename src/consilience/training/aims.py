"""What is learned from a batch: every objective by the name that it has in a config.

Each is a function of a `Work`. The mathematics is in `objectives`; what stands here is which of the
work's things go into it, and what happens to questions that it has nothing to say about.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from consilience.errors import UsageError
from consilience.generation import TrainableGenerator
from consilience.model.batch import spread
from consilience.model.fusion import token_log_likelihood
from consilience.training.contrasting import contrast
from consilience.training.names import ObjectiveName
from consilience.training.objectives import (
    attention_distillation,
    distil_posterior,
    distil_states,
    distil_sum,
    emdr2,
    kl_distillation,
    leave_one_out,
    margin_mse,
    marginal_likelihood,
    perplexity_distillation,
    support_likelihood,
    without_each,
)
from consilience.training.objectives.joint import Alignment
from consilience.training.work import Work


def reader(work: Work) -> Tensor:
    """-log p(y | x, d) of the passage that is known to hold the answer, in nats an answer."""
    known = [example for example in work.batch if example.passage is not None]
    if not known:
        return work.model.log_temperature * 0.0
    part = Work(work.learner, known)
    passages = [example.passage for example in known if example.passage is not None]
    return part.unlikely(part.read([one.question for one in known], passages)).mean()


def fid(work: Work) -> Tensor:
    """-log p(y | x, all passages): Fusion-in-Decoder, in nats an answer."""
    return work.unlikely(work.joined).mean()


def summed(work: Work, fusion: Literal["sequence", "token"]) -> Tensor:
    """-log p(y | x), the sum over passages, in nats an answer; labels smoothed if asked for."""
    found = marginal_likelihood(
        work.scores, work.log_probs, work.mask, fusion=fusion, temperature=work.model.temperature
    )
    return found + work.smoothed(work.prior, fusion)


def averaged(work: Work) -> Tensor:
    """-log p(y | x) where every rank of the passages has a weight, in nats an answer.

    RAG-Token with weights that know the place of a passage in the list and not its score; see
    `model.averaging`.
    """
    found = token_log_likelihood(work.rank_weights, work.log_probs, work.mask)
    return work.smoothed(work.rank_weights, "average") - found.mean()


def looked_at(work: Work) -> Tensor:
    """-log p(y | x, vectors of the passages): attention fusion, in nats an answer."""
    return work.unlikely(work.looking).mean()


def in_context(work: Work) -> Tensor:
    """-log p(y | x, one text of all passages), in nats an answer."""
    return work.unlikely(work.in_one_text).mean()


def attended(work: Work) -> Tensor:
    """ADist: the prior is drawn to where a Fusion-in-Decoder generator looked."""
    joined = work.joined  # made with its graph, which other objectives may want
    with torch.no_grad():
        shares = attention_shares(work.generator, joined, work.targets)
    return attention_distillation(
        work.scores,
        shares.clamp_min(1e-9).log(),
        alignment=Alignment(
            score_temperature=work.options.alignment.score_temperature, target_temperature=1.0
        ),
    )


def attention_shares(generator: TrainableGenerator, joined: Any, targets: Tensor) -> Tensor:
    """How much of its attention the generator gave each passage while it wrote the targets.

    Args:
        generator: Whose states tell the shares.
        joined: Of `together`, `b` rows.
        targets: Padded with -100, `[b, t]`.

    Returns:
        The mean over the tokens, `[b, k]`.

    Raises:
        UsageError: This kind of generator does not tell.
    """
    mask = targets != -100
    ids = targets.masked_fill(~mask, generator.end)
    state, _ = generator.begin(joined)
    total = None
    for step in range(targets.shape[1]):
        shares = getattr(state, "shares", None)
        if shares is None:
            raise UsageError(
                "this generator does not tell what it attends to",
                hint="take the objective perplexity in place of attention",
            )
        here = shares[:, 0] * mask[:, step, None]
        total = here if total is None else total + here
        generator.step(joined, state, ids[:, step, None], torch.zeros_like(ids[:, :1]))
    assert total is not None
    mean: Tensor = total / mask.sum(1, keepdim=True)
    return mean


def missed(work: Work) -> Tensor:
    """LOOP: the prior is drawn to the passages that the sum misses when they are gone."""
    without = without_each(work.prior.detach(), work.log_probs.detach(), work.mask)
    return leave_one_out(work.scores, without, work.mask, alignment=work.options.alignment)


def abstain(work: Work) -> Tensor:
    """Whether each passage says [NONE] exactly where it holds no answer."""
    none = work.generator.none
    if none is None:
        raise UsageError(
            "this generator has no token that says there is no answer",
            hint="leave the objective abstain out",
        )
    asked, passages, supports = [], [], []
    for example in work.batch:
        right = [] if example.passage is None else [example.passage]
        for passage in [*right, *example.negatives]:
            asked.append(example.question)
            passages.append(passage)
            supports.append(passage in right and not example.unanswerable)
    if not passages:
        return work.model.log_temperature * 0.0
    memory = work.read(asked, passages)
    target = torch.full((len(passages), 1), none, device=work.generator.device)
    said = work.generator.target_log_probs(memory, target)
    right_ones = torch.tensor(supports, device=said.device)[:, None]
    return support_likelihood(said, right_ones, torch.ones_like(right_ones))


def _teacher(work: Work) -> Work:
    if work.teacher is None:
        raise UsageError(
            "an objective of this run learns from a teacher, and there is none",
            hint="set distil.teacher to a model",
        )
    return work.teacher


def told(work: Work) -> Tensor:
    """The sum of the teacher over every word, told to the student token by token."""
    teacher = _teacher(work)
    return distil_sum(
        work.summed_words, teacher.summed_words, work.mask, temperature=work.options.softening
    )


def rested_on(work: Work) -> Tensor:
    """The student's prior is drawn to what the teacher's answer rested on."""
    there = work.proposals.present.to(work.prior.device)
    return distil_posterior(work.prior, _teacher(work).posterior, mask=there)


def read_alike(work: Work) -> Tensor:
    """The states of the student's reader are drawn to the teacher's, token by token."""
    own, wanted = _states(work.memory), _states(_teacher(work).memory)
    return distil_states(own, wanted, work.rows.mask, projection=work.learner.projection)


def _states(memory: Any) -> Tensor:
    states: Tensor | None = getattr(memory, "states", None)
    if states is None:
        raise UsageError(
            "this kind of generator has no encoder whose states could be compared",
            hint="leave the objective distil_states out",
        )
    return states


@dataclass(frozen=True, slots=True)
class _Ranked:
    """Scores of passages, the right one of each question first where it is known.

    Attributes:
        student: The retriever's, `[b, n]`.
        teacher: The teacher's, `[b, n]`.
        there: True where there is a passage, `[b, n]`.
    """

    student: Tensor
    teacher: Tensor
    there: Tensor


def _ranking(work: Work, known: Sequence[bool]) -> _Ranked:
    """What retriever and teacher think of the passages of some questions, at least one."""
    chosen = [one for one, kept in zip(work.batch, known, strict=True) if kept]
    device = work.question_vectors.device
    questions = work.question_vectors[torch.tensor(known, device=device)]
    longest = max(len(one.taught) for one in chosen)
    there = torch.zeros(len(chosen), longest, dtype=torch.bool, device=device)
    teacher = torch.zeros(len(chosen), longest, device=device)
    for row, one in enumerate(chosen):
        there[row, : len(one.taught)] = True
        teacher[row, : len(one.taught)] = torch.tensor(one.taught, device=device)
    passages = [passage for one in chosen for passage in one.candidates]
    vectors = spread(work.passage_vectors(passages), there)
    student = (questions[:, None] * vectors).sum(-1) / work.options.temperature
    return _Ranked(student, teacher, there)


def margins(work: Work) -> Tensor:
    """The distances from the right passage to the wrong ones, as a teacher sees them."""
    known = [bool(one.taught) and one.passage is not None for one in work.batch]
    if not any(known):
        return work.question_vectors.sum() * 0.0
    found = _ranking(work, known)
    return margin_mse(found.student, found.teacher, mask=found.there)


def ranked(work: Work) -> Tensor:
    """The retriever's distribution over the passages drawn to a teacher's."""
    known = [bool(one.taught) for one in work.batch]
    if not any(known):
        return work.question_vectors.sum() * 0.0
    found, temperature = _ranking(work, known), work.options.ranking
    return kl_distillation(
        found.student * temperature, found.teacher, temperature=temperature, mask=found.there
    )


OBJECTIVES: Mapping[ObjectiveName, Callable[[Work], Tensor]] = {
    "sequence": partial(summed, fusion="sequence"),
    "token": partial(summed, fusion="token"),
    "emdr2": lambda work: emdr2(
        work.scores, work.log_probs, work.mask, temperature=work.model.temperature
    ),
    "perplexity": lambda work: perplexity_distillation(
        work.scores, work.log_probs, work.mask, alignment=work.options.alignment
    ),
    "attention": attended,
    "leave_one_out": missed,
    "fid": fid,
    "average": averaged,
    "attention_fusion": looked_at,
    "concat": in_context,
    "reader": reader,
    "info_nce": contrast,
    "abstain": abstain,
    "distil": told,
    "distil_posterior": rested_on,
    "distil_states": read_alike,
    "margin_mse": margins,
    "kl": ranked,
}
"""What is learned, by the name it has in a config."""
