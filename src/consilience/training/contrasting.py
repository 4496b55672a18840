"""The contrastive objective over a batch: whole, or in chunks that fit into little memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from consilience.questions import Context
from consilience.training.examples import Example
from consilience.training.names import ObjectiveName
from consilience.training.objectives import Tower, cached_gradients, false_negative_mask, info_nce
from consilience.training.plain_text import made_from
from consilience.training.work import Work

if TYPE_CHECKING:
    from consilience.training.learner import Learner


@dataclass(frozen=True, slots=True)
class Contrast:
    """The texts of a contrastive batch.

    Attributes:
        questions: Those whose passage is known, `b` of them.
        passages: The right one of each, then everybody's wrong ones.
    """

    questions: list[str]
    passages: list[Context]

    @classmethod
    def of(cls, batch: Sequence[Example]) -> "Contrast":
        """What of a batch can be contrasted."""
        known = [example for example in batch if example.passage is not None]
        right = [example.passage for example in known if example.passage is not None]
        wrong = [passage for example in known for passage in example.negatives]
        return cls([example.question for example in known], [*right, *wrong])

    def loss(self, questions: Tensor, passages: Tensor, *, temperature: float) -> Tensor:
        """`info_nce` of vectors, `[b, size]` and `[p, size]`; a text is no negative of itself."""
        scores = questions @ passages.T
        positives = torch.arange(len(self.questions), device=scores.device)
        places = {text: i for i, text in enumerate(dict.fromkeys(d.text for d in self.passages))}
        groups = torch.tensor([places[d.text] for d in self.passages], device=scores.device)
        masked = false_negative_mask(groups, positives)
        return info_nce(scores, positives, temperature=temperature, masked=masked)


def contrast(work: Work) -> Tensor:
    """`info_nce` of the questions whose passage is known, against everything in the batch."""
    found = Contrast.of(work.batch)
    if not found.questions:
        return work.question_vectors.sum() * 0.0
    known = torch.tensor([example.passage is not None for example in work.batch])
    questions = work.question_vectors[known.to(work.question_vectors.device)]
    return found.loss(
        questions, work.passage_vectors(found.passages), temperature=work.options.temperature
    )


def contrast_in_chunks(
    learner: "Learner", batch: Sequence[Example], *, chunk: int, scale: float
) -> dict[str, Any]:
    """As a learner with one contrastive objective, gradients added, in the memory of `chunk` texts.

    Args:
        learner: Whose encoders.
        batch: Of any size; questions, or texts that give pairs for the one objective that there is.
        chunk: Texts encoded at once with a graph.
        scale: What the loss is multiplied by before it is differentiated.

    Returns:
        `loss`, without a graph, and `parts`, as `Learner.forward`.
    """
    (name,) = learner.mixture.active
    batch = list(batch) if name == "info_nce" else made_from(batch, cast(ObjectiveName, name))
    found, work = Contrast.of(batch), Work(learner, batch)
    if not found.questions:
        return {"loss": torch.zeros((), device=work.generator.device), "parts": {name: 0.0}}
    asked = Tower(work.vectors_of, _chunks(found.questions, chunk))
    told = Tower(work.passage_vectors, _chunks(found.passages, chunk))
    towers = [asked, told] if learner.options.moving else [asked]
    fixed = None if learner.options.moving else work.passage_vectors(found.passages)
    parts: dict[str, float] = {}

    def mixed(questions: Tensor, passages: Tensor | None = fixed) -> Tensor:
        assert passages is not None
        temperature = learner.options.temperature
        told = partial(found.loss, questions, passages, temperature=temperature)
        made = learner.mixture({name: told})
        parts.update(made.parts)
        return made.loss

    return {"loss": cached_gradients(towers, mixed, scale=scale), "parts": parts}


def _chunks(items: Sequence[Any], size: int) -> list[Any]:
    return [items[at : at + size] for at in range(0, len(items), size)]
