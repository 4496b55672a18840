"""Heads beside an encoder: which word stood there, and whether one sentence followed another.

They exist while an encoder learns from plain text. The model that is saved has no place for them;
a run keeps them in a file of its own, or lets them go.

Source: Devlin et al., 2019, "BERT", appendix A.2, with the word vectors of the encoder as the last
layer.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from consilience.model.vectors import CompactVectors, PooledEncoder
from consilience.training.spelling import Rows

if TYPE_CHECKING:
    from consilience.training.learner import Learner

SIDES = ("question_encoder", "passage_encoder")
HEADED = ("mlm", "nsp")
"""Objectives that have a head."""

FILE = "heads.safetensors"
"""Where in its folder a run keeps its heads."""


class WordHead(nn.Module):
    """`LayerNorm(gelu(W h)) E^T + b`: logits of every word from a state.

    Args:
        size: Of states.
        vocabulary: How many words there are.
    """

    def __init__(self, size: int, vocabulary: int) -> None:
        super().__init__()
        self.dense, self.norm = nn.Linear(size, size), nn.LayerNorm(size)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, states: Tensor, words: Tensor) -> Tensor:
        """`[n, size]` states and `[v, size]` word vectors to `[n, v]`."""
        return functional.linear(self.norm(functional.gelu(self.dense(states))), words, self.bias)


class FollowHead(nn.Module):
    """`W h_1`: two logits from the state of the first token, the second for "it follows".

    Args:
        size: Of states.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(size, 2)

    def forward(self, states: Tensor) -> Tensor:
        """`[b, t, size]` to `[b, 2]`."""
        logits: Tensor = self.dense(states[:, 0])
        return logits


@dataclass(frozen=True, slots=True)
class Side:
    """An encoder of a model that learns.

    Attributes:
        name: Of the part of the model.
        module: The encoder.
    """

    name: str
    module: CompactVectors | PooledEncoder

    @property
    def layers(self) -> nn.Module:
        """What two sides may share."""
        shared: Any = self.module
        found: nn.Module = shared.layers if isinstance(shared, CompactVectors) else shared.model
        return found

    @property
    def words(self) -> Tensor:
        """The vectors of its words, `[v, size]`."""
        if isinstance(self.module, CompactVectors):
            return self.module.embeddings.word_embeddings.weight
        model: Any = self.module.model
        weight: Tensor = model.get_input_embeddings().weight
        return weight

    def states(self, ids: Tensor, rows: Rows) -> Tensor:
        """The state of every token, `[b, t, size]`; `ids` stand in the place of those of `rows`."""
        if isinstance(self.module, CompactVectors):
            embedded = self.module.embeddings(ids, rows.segments)
            found: Tensor = self.module.layers(embedded, rows.mask)
            return found
        model: Any = self.module.model
        more = {"token_type_ids": rows.segments} if _has_segments(model) else {}
        told = model(
            input_ids=ids,
            attention_mask=rows.mask.long(),
            output_hidden_states=True,
            return_dict=True,
            **more,
        )
        states: Tensor = told.hidden_states[-1]
        return states


def _has_segments(model: Any) -> bool:
    return int(getattr(model.config, "type_vocab_size", 0)) > 1


def sides_of(learner: "Learner") -> list[Side]:
    """The encoders that learn; two that share their layers count once."""
    found: dict[int, Side] = {}
    for name in reversed(SIDES):
        module = getattr(learner.model, name)
        if isinstance(module, CompactVectors | PooledEncoder):
            side = Side(name, module)
            if any(weight.requires_grad for weight in side.layers.parameters()):
                found.setdefault(id(side.layers), side)
    return list(found.values())


def fit_heads(learner: "Learner") -> None:
    """Give a learner the heads that its objectives need.

    Args:
        learner: Before its optimiser is made.
    """
    for side in sides_of(learner):
        vocabulary, size = side.words.shape
        for name in HEADED:
            if name in learner.mixture.active:
                head = WordHead(size, vocabulary) if name == "mlm" else FollowHead(size)
                learner.heads[f"{side.name}-{name}"] = head


def keep_heads(learner: "Learner", folder: Path) -> Path:
    """Write the heads into a folder, under the names `encoder-objective.weight`."""
    place = folder / FILE
    save_file(dict(_plain(learner.heads)), place)
    return place


def _plain(heads: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, value in heads.state_dict().items():
        yield name, value.detach().cpu().contiguous()
