"""The model of a run with its objectives: from a batch to a loss.

The learner is a module, so that whoever distributes modules can wrap it. What is computed for a
batch is `work`'s, what is made of it `aims`'s.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import nn

from consilience.model.rag_model import RagModel
from consilience.training.aims import OBJECTIVES
from consilience.training.collapse import Retrieved
from consilience.training.examples import Example
from consilience.training.objectives import Mixed, Mixture
from consilience.training.proposals import PassageIndex
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

    Attributes:
        projection: From the student's states to those of a teacher of another width, `[h, g]`.
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
    ) -> None:
        super().__init__()
        self.model, self.texts, self.index, self.options = model, texts, index, options
        self.mixture = Mixture({str(k): v for k, v in options.objectives.items()})
        # In a tuple, so that its weights are not counted among this module's.
        self.teachers = () if teacher is None else (teacher,)
        self.projection: nn.Parameter | None = None
        self.retrieved: Retrieved | None = None

    def forward(self, batch: Sequence[Example]) -> dict[str, Any]:
        """The loss of a batch under `loss`, and what it is made of under `parts`."""
        work = Work(self, batch)
        mixed = self.mixed(work)
        self.retrieved = work.retrieved()
        return {"loss": mixed.loss, "parts": mixed.parts}

    def mixed(self, work: "Work") -> Mixed:
        """The objectives of a batch whose parts may be wanted for more."""
        return self.mixture({name: partial(make, work) for name, make in OBJECTIVES.items()})
