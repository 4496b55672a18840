"""The coordinator's own copy of what is trained: it begins a run and keeps its end.

It has no data, no store and no questions. What the run begins with is the recipe's model.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from consilience.federation.config import FederationConfig
from consilience.federation.contracts import Weights
from consilience.federation.recipe import Own, save_whole, settings_of, tokenizer_fingerprint
from consilience.federation.travelling import (
    Travelling,
    moving_in,
    with_controls,
    without_controls,
)
from consilience.model.rag import Rag
from consilience.training.config import DataSettings
from consilience.training.preparing import prepare


class CoordinatorModel:
    """The model that a recipe begins from.

    Args:
        recipe: A config of `consilience train` as it was written; `model` is what counts here, and
            how it is prepared.
        config: Of the federation.

    Raises:
        UsageError: Mistakes in the recipe, or names under `travel` that no weight has.
        MissingError: There is no such model.
    """

    def __init__(self, recipe: Mapping[str, Any], config: FederationConfig) -> None:
        self.config = config
        # Nothing of this is opened: a recipe without data and store would be no config.
        nobodys = DataSettings(train=(Path("questions.jsonl"),))
        own = Own(recipe.get("model"), Path("knowledge"), nobodys, config.output)
        settings = settings_of(recipe, config, own, source=f"the recipe {config.recipe}")
        torch.manual_seed(settings.seed)
        self.rag = Rag.load(settings.model, precision="float32")
        prepare(self.rag, settings)
        self.travelling = Travelling(self.rag.model, config.travel, seed=config.seed)
        self._start = self.travelling.read()
        self._described = self.travelling.fingerprint(), tokenizer_fingerprint(self.rag)

    def describe(self) -> tuple[str, str]:
        """Fingerprints of what does not travel, and of the tokenizers."""
        return self._described

    def shared(self) -> dict[str, Tensor]:
        """The weights that travel, as the run begins with them, float32."""
        return with_controls(self._start) if self.config.scaffold else dict(self._start)

    def moving(self, round_: int) -> tuple[str, ...]:
        """Names of those that are trained in a round."""
        return moving_in(self.config.travel.kind, round_, list(self.shared()))

    def keep(self, weights: Weights) -> str:
        """Save the model of these weights under the run's `output`; returns where."""
        return self.save(weights, self.config.output / "model")

    def save(self, weights: Weights, place: Path) -> str:
        """Save the model of these weights; returns where.

        Raises:
            UsageError: They are of another model.
        """
        self.travelling.write(without_controls(weights))
        return save_whole(self.rag, place)
