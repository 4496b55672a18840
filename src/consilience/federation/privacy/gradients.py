"""The gradient of each question's loss by itself, as one vector a question.

A question's loss is the recipe's objectives over a batch of that question alone: its own passages,
its own sum. Two ways give it, to the same numbers:

    together    `vmap` of `grad` over questions, whose texts were made tensors outside; for the
                model that ships and objectives that are functions of those tensors, where an
                accelerator wants much to do at once
    one by one  a batch of one after another; for everything else (transformers' models score
                answers by a function of ours that has no rule for `vmap`), and on processors,
                where it is faster

Rows are never taken for samples: a question with k passages is k rows of the generator, and
clipping rows would let it count up to k times.

Which questions there are, how they are clipped and noised, is not known here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from consilience.generation import TokenRows
from consilience.generation.compact import CompactGenerator
from consilience.model.fusion import exact
from consilience.questions import Context
from consilience.store.embedding import embedding_text
from consilience.training.aims import OBJECTIVES
from consilience.training.examples import Example
from consilience.training.learner import Learner
from consilience.training.proposals import Proposals
from consilience.training.work import Work

TENSORS_ONLY = frozenset({"sequence", "token", "emdr2", "perplexity", "leave_one_out", "fid"})
"""Objectives that look at nothing but tensors once passages are proposed."""

CHUNK = 8
"""Questions whose gradients are taken together; bounds the memory."""

Gradient = tuple[Tensor, float]
"""A question's gradient, flat, in the order of the weights, `[size]`, and its loss."""


class QuestionGradients:
    """The gradients of single questions.

    Args:
        learner: Whose objectives.
        moving: The weights that learn, by any name; all of them are the learner's.

    Attributes:
        size: Numbers in a gradient.
        possible: Whether gradients can be taken together.
        vectorised: Whether they are.
    """

    def __init__(self, learner: Learner, moving: Mapping[str, nn.Parameter]) -> None:
        self.learner, self.moving = learner, list(moving.values())
        self.size = sum(weight.numel() for weight in self.moving)
        generator = learner.model.generator
        self.possible = (
            isinstance(generator, CompactGenerator)
            and TENSORS_ONLY.issuperset(learner.mixture.active)
            and not learner.options.smoothing
        )
        # A processor is busy with the rows of one question already.
        self.vectorised = self.possible and generator.device.type != "cpu"

    def of(self, examples: Sequence[Example]) -> Iterator[Gradient]:
        """Of each example, in order."""
        for start in range(0, len(examples), CHUNK):
            chunk = examples[start : start + CHUNK]
            given = self._given(chunk) if self.vectorised and len(chunk) > 1 else None
            yield from self.one_by_one(chunk) if given is None else self.together(given)

    def one_by_one(self, examples: Sequence[Example]) -> Iterator[Gradient]:
        """A batch of one after another."""
        for example in examples:
            loss = loss_of(Work(self.learner, [example]))
            if not loss.requires_grad:  # nothing in it is learned from
                yield torch.zeros(self.size), float(loss)
                continue
            parts = torch.autograd.grad(loss, self.moving, materialize_grads=True)
            yield torch.cat([part.flatten() for part in parts]).cpu(), float(loss.detach())

    def together(self, given: "Given") -> Iterator[Gradient]:
        """All in one call."""
        told, weights = _Told(self.learner), [weight.detach() for weight in self.moving]
        places = [_places(told, weight) for weight in self.moving]

        def loss(weights: list[Tensor], given: Mapping[str, Tensor]) -> Tensor:
            pairs = zip(places, weights, strict=True)
            put = {name: weight for names, weight in pairs for name in names}
            found: Tensor = functional_call(told, put, (given,), tie_weights=False)
            return found

        each = vmap(grad_and_value(loss), in_dims=(None, 0), randomness="different")
        parts, losses = each(weights, given.tensors)
        flat = torch.cat([part.reshape(len(losses), -1) for part in parts], dim=1).cpu()
        yield from zip(flat, losses.tolist(), strict=True)

    def _given(self, examples: Sequence[Example]) -> "Given | None":
        """The texts of examples as tensors; None where some have fewer passages than others."""
        with torch.no_grad():
            work = Work(self.learner, examples)
            return Given.of(work) if bool(work.proposals.present.all()) else None


def loss_of(work: Work) -> Tensor:
    """The weighted sum of the objectives, without a look at its value.

    A value that is no number is the affair of whoever clips: to stop there would tell of it.
    """
    weights = work.learner.mixture.weights
    terms = [weights[name] * OBJECTIVES[name](work) for name in work.learner.mixture.active]  # type: ignore[index]
    return sum(terms[1:], start=terms[0])


@dataclass(frozen=True, slots=True)
class Given:
    """Everything about questions that does not depend on a weight.

    Attributes:
        tensors: `b` questions first in each:
            `asked`, `asked_mask`: ids of the question, `[b, q]`;
            `vectors`: of its passages as the index has them, `[b, k, size]`;
            `rows`, `rows_mask`: what the generator reads, `[b, k, l]`;
            `targets`: of the answer, -100 at padding, `[b, t]`;
            `told`, `told_mask`: ids of its passages, `[b, k, p]`, where their encoder learns.
    """

    tensors: Mapping[str, Tensor]

    @classmethod
    def of(cls, work: Work) -> "Given":
        """What a batch proposes, every question as many passages."""
        b, k = work.proposals.places.shape
        device, rows = work.generator.device, work.rows
        asked = _ids(work, [example.question for example in work.batch])
        tensors = {
            "asked": asked[0],
            "asked_mask": asked[1],
            "vectors": work.proposals.vectors.to(device),
            "rows": rows.ids.view(b, k, -1),
            "rows_mask": rows.mask.view(b, k, -1),
            "targets": work.targets,
        }
        if work.options.moving:
            told = _ids(work, [embedding_text(d.title, d.text) for d in work.proposed])
            tensors |= {"told": told[0].view(b, k, -1), "told_mask": told[1].view(b, k, -1)}
        return cls(tensors)


def _places(module: nn.Module, weight: nn.Parameter) -> list[str]:
    """The names under which a weight stands, one for each module that holds it.

    A module that is part of two others, as layers shared by two encoders are, must be named once:
    `functional_call` would put the weight in twice and not take it out again.
    """
    return [
        f"{name}.{own}".removeprefix(".")
        for name, holder in module.named_modules()
        for own, held in holder.named_parameters(recurse=False)
        if held is weight
    ]


def _ids(work: Work, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Ids and mask as the encoders read them, `[texts, length]` each."""
    assert work.learner.texts is not None  # whoever proposes passages has encoders
    ids, mask = work.learner.texts.token_rows(texts)
    return ids.to(work.generator.device), mask.to(work.generator.device)


class _Told(nn.Module):
    """The loss of one question out of tensors, as a module whose weights can be put in."""

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, given: Mapping[str, Tensor]) -> Tensor:
        """The loss of one question; the tensors of `Given` without their first dimension."""
        return loss_of(_OneQuestion(self.learner, given))


class _OneQuestion(Work):
    """The work of a batch of one whose texts are tensors already."""

    def __init__(self, learner: Learner, given: Mapping[str, Tensor]) -> None:
        super().__init__(learner, [])
        self.given = given

    @cached_property
    def question_vectors(self) -> Tensor:
        """`[1, size]`."""
        encoder: Any = self.model.question_encoder
        return exact(encoder(self.given["asked"][None], self.given["asked_mask"][None]))

    def passage_vectors(self, passages: Sequence[Context]) -> Tensor:  # noqa: ARG002
        """Of the passages given, whatever their texts, `[k, size]`."""
        encoder: Any = self.model.passage_encoder
        return exact(encoder(self.given["told"], self.given["told_mask"]))

    @cached_property
    def proposals(self) -> Proposals:
        """All there; their places are not looked at any more."""
        vectors = self.given["vectors"][None]
        return Proposals(torch.zeros(1, vectors.shape[1], dtype=torch.long), vectors)

    @cached_property
    def proposed(self) -> list[Context]:
        """Texts that nobody reads."""
        return []

    @cached_property
    def targets(self) -> Tensor:
        """`[1, t]`."""
        return self.given["targets"][None]

    @cached_property
    def rows(self) -> TokenRows:
        """`[k, l]`."""
        return TokenRows(self.given["rows"], self.given["rows_mask"])
