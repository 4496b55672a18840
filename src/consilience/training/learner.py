"""The model of a run with its objectives: from a batch to a loss.

The learner is a module, so that whoever distributes modules can wrap it. What is computed for a
batch is `work`'s, what is made of it `aims`'s.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from consilience.model.rag_model import RagModel
from consilience.training.aims import OBJECTIVES
from consilience.training.collapse import Retrieved
from consilience.training.examples import Example
from consilience.training.hybrid import LearnedShares
from consilience.training.objectives import Mixed, Mixture
from consilience.training.proposals import PassageIndex
from consilience.training.text_aims import TEXT_OBJECTIVES, TextWork
from consilience.training.work import EncoderTexts, LearnerOptions, Work


class Learner(nn.Module):
    """The model of a run with its objectives.

    Args:
        model: With encoders where the objectives need them.
        texts: Of the encoders.
        index: Which passages there are; None when no objective proposes any.
        options: How it learns.
        teacher: Of the objectives that have one; its index has the same passages at the same
            places, and it is no part of what is trained or saved.
        shares: Between the halves of hybrid search; None where none is learned.

    Attributes:
        projection: From the student's states to those of a teacher of another width, `[h, g]`.
        heads: Of objectives that learn from plain text, by encoder and objective.
        retrieved: What the last batch retrieved, for the collapse monitor; None if it did not.
    """

    def __init__(
        self,
        model: RagModel,
        texts: EncoderTexts | None,
        *,
        index: PassageIndex | None,
        options: LearnerOptions,
        teacher: "Learner | None" = None,
        shares: LearnedShares | None = None,
    ) -> None:
        super().__init__()
        self.model, self.texts, self.index, self.options = model, texts, index, options
        self.mixture = Mixture({str(k): v for k, v in options.objectives.items()})
        # In a tuple, so that its weights are not counted among this module's.
        self.teachers = () if teacher is None else (teacher,)
        self.shares = shares
        self.projection: nn.Parameter | None = None
        self.heads = nn.ModuleDict()
        self.retrieved: Retrieved | None = None

    def forward(self, batch: Sequence[Example]) -> dict[str, Any]:
        """The loss of a batch under `loss`, and what it is made of under `parts`."""
        work = Work(self, [one for one in batch if one.plain is None])
        mixed = self.mixed(work, [one for one in batch if one.plain is not None])
        self.retrieved = work.retrieved()
        return {"loss": mixed.loss, "parts": mixed.parts}

    def mixed(self, work: "Work", texts: Sequence[Example] = ()) -> Mixed:
        """The objectives of a batch whose parts may be wanted for more.

        Args:
            work: Of its questions.
            texts: Its plain texts. What has nothing to learn from in this batch is left out, and a
                batch that has nothing at all has a loss of zero that moves nothing.
        """
        if not texts and not self._reads_texts:
            return self.mixture({name: partial(make, work) for name, make in OBJECTIVES.items()})
        told = {} if not texts else self._told(TextWork(self, texts))
        asked = {name: partial(make, work) for name, make in OBJECTIVES.items() if work.batch}
        made = told | asked
        weights = {name: w for name, w in self.mixture.weights.items() if w and name in made}
        return Mixture(weights)(made) if weights else Mixed(self._nothing(), {})

    @property
    def _reads_texts(self) -> bool:
        return any(name in self.mixture.active for name in TEXT_OBJECTIVES)

    def _told(self, work: TextWork) -> dict[str, Callable[[], Tensor]]:
        """What the objectives find in texts."""
        found = {
            name: make(work)
            for name, make in TEXT_OBJECTIVES.items()
            if name in self.mixture.active
        }
        return {
            name: partial(_as_it_is, value) for name, value in found.items() if value is not None
        }

    def _nothing(self) -> Tensor:
        """Zero, with a gradient of zero where anything learns."""
        learning = next((w for w in self.parameters() if w.requires_grad), None)
        return torch.zeros(()) if learning is None else learning.sum() * 0.0


def _as_it_is(value: Tensor) -> Tensor:
    return value
