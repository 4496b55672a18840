"""Where each family of transformers' models keeps its parts: a closed table.

The table is keyed by `config.model_type` and names the encoder, the decoder that gives last hidden
states, and the head that makes logits of them. Nothing here computes; nothing here imports
transformers: a model that is handed in brought it along.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

from torch import Tensor, nn

from consilience.errors import UsageError
from consilience.generation.heads import Head

_Entry = TypeVar("_Entry")


@dataclass(frozen=True, slots=True)
class Parts:
    """The two halves of an encoder-decoder model.

    Attributes:
        encoder: Ids or embeddings to states.
        decoder: Embeddings and encoder states to last hidden states.
        layers: How many layers the decoder has.
        project: Encoder states as the decoder attends to them.
    """

    encoder: Any
    decoder: Any
    layers: int
    project: Callable[[Tensor], Tensor]


def head_of(model: Any) -> Head:
    """How a model's last hidden states become logits.

    Args:
        model: A transformers model with a language-model head, as it stands now: ask again after
            its weights were replaced.

    Raises:
        UsageError: A family that is not in the table.
    """
    return _entry(HEADS, model)(model)


def parts_of(model: Any) -> Parts:
    """The encoder and the decoder of a model.

    Raises:
        UsageError: A family that is not in the table.
    """
    return _entry(PARTS, model)(model)


def twin_of(model: Any, attention: str) -> Any:
    """The same modules over the same tensors, with configurations of their own.

    Args:
        model: Of transformers; nothing of it is changed.
        attention: The name of the attention function that the twin's configurations get.
    """
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    twin = copy.deepcopy(model, shared)
    for module in twin.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation = attention
    return twin


def _entry(table: Mapping[str, _Entry], model: Any) -> _Entry:
    kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    if kind not in table:
        raise UsageError(
            f"a model of type {kind!r} is not one that can be read here",
            hint=f"known types: {', '.join(sorted(table))}",
        )
    return table[kind]


def _untouched(states: Tensor) -> Tensor:
    return states


def _plain_head(model: Any) -> Head:
    return Head(model.lm_head.weight, model.lm_head.bias)


def _bart_head(model: Any) -> Head:
    return Head(model.lm_head.weight, model.final_logits_bias[0])


def _t5_head(model: Any) -> Head:
    # A T5 whose head is tied to its embeddings brings the states to their scale first.
    if not getattr(model.config, "scale_decoder_outputs", False):
        return _plain_head(model)
    scale = model.config.d_model**-0.5
    return Head(model.lm_head.weight, prepare=lambda states: states * scale)


def _bert_head(model: Any) -> Head:
    predictions = model.cls.predictions
    return Head(predictions.decoder.weight, predictions.decoder.bias, predictions.transform)


HEADS: dict[str, Callable[[Any], Head]] = {
    "bart": _bart_head,
    "bert": _bert_head,
    "encoder-decoder": lambda model: head_of(model.decoder),
    "gpt2": _plain_head,
    "llama": _plain_head,
    "mbart": _bart_head,
    "mt5": _plain_head,
    "qwen2": _plain_head,
    "qwen3": _plain_head,
    "t5": _t5_head,
}


def _bart_parts(model: Any) -> Parts:
    decoder = model.model.decoder
    return Parts(model.model.encoder, decoder, len(decoder.layers), _untouched)


def _t5_parts(model: Any) -> Parts:
    return Parts(model.encoder, model.decoder, len(model.decoder.block), _untouched)


def _joined_parts(model: Any) -> Parts:
    decoder, layers = _entry(_DECODERS, model.decoder)(model.decoder)
    project = getattr(model, "enc_to_dec_proj", None)
    return Parts(model.encoder, decoder, len(layers), project or _untouched)


PARTS: dict[str, Callable[[Any], Parts]] = {
    "bart": _bart_parts,
    "encoder-decoder": _joined_parts,
    "mbart": _bart_parts,
    "mt5": _t5_parts,
    "t5": _t5_parts,
}

_DECODERS: dict[str, Callable[[Any], tuple[nn.Module, nn.ModuleList]]] = {
    "bert": lambda model: (model.bert, model.bert.encoder.layer),
    "gpt2": lambda model: (model.transformer, model.transformer.h),
}
