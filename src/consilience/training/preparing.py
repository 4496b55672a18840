"""Which weights of a model a run moves, and how: parts, frozen names, adapters, dropout.

The model that ships shares its embeddings between retriever and generator. They move only when the
passage encoder does: otherwise every vector in the index would be of another model. For the same
reason questions get layers of their own when they learn and passages do not.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from consilience.encoding.bert import EncoderStack
from consilience.encoding.compact import CompactEncoder
from consilience.errors import DependencyError, UsageError
from consilience.model.attention_fusion import untrained
from consilience.model.averaging import RankWeights
from consilience.model.rag import Rag
from consilience.model.rag_model import RagModel
from consilience.model.vectors import CompactVectors
from consilience.training.config import AdapterSettings, TrainConfig

_DROPOUTS = ("dropout", "attention_dropout", "activation_dropout")


def prepare(rag: Rag, config: TrainConfig) -> None:
    """Make exactly those weights learn that the settings name.

    Raises:
        UsageError: A part that the model does not have, a frozen name that none begins with, an
            adapter that fits no layer.
        DependencyError: Adapters without the package for them.
    """
    model = rag.model.float()
    model.requires_grad_(False)
    _untie(rag, config)
    _begin(rag, config)
    for part in config.train:
        if part == "hybrid_weights":  # no weight of the model: the session has them
            continue
        _learning(model, part).requires_grad_(True)
    if isinstance(rag.encoder, CompactEncoder) and "passage_encoder" not in config.train:
        rag.encoder.embeddings.requires_grad_(False)
    if config.adapter.kind == "lora":
        _adapt(model, config.adapter)
    _freeze(model, config.frozen)
    learning = any(weight.requires_grad for weight in model.parameters())
    if not learning and "hybrid_weights" not in config.train:
        raise UsageError("nothing is left to train", hint="name fewer weights under `frozen`")
    if config.dropout is not None:
        _drop(model, config.dropout)
    if config.checkpointing:
        _check_points(model)


def merge_adapters(model: RagModel) -> None:
    """Add what adapters learned to the weights that they stand beside, and take them away."""
    for owner, name, layer in list(_adapted(model)):
        layer.merge()
        setattr(owner, name, layer.get_base_layer())


@contextmanager
def merged_adapters(model: RagModel) -> Iterator[None]:
    """The model as `merge_adapters` leaves it, until what follows `with` is done."""
    found = list(_adapted(model))
    plain = [layer.get_base_layer().weight.detach().clone() for _, _, layer in found]
    merge_adapters(model)
    try:
        yield
    finally:
        for (owner, name, layer), weight in zip(found, plain, strict=True):
            layer.merged_adapters.clear()
            layer.get_base_layer().weight.data.copy_(weight)
            setattr(owner, name, layer)


def _adapted(model: RagModel) -> Iterator[tuple[nn.Module, str, Any]]:
    """The layers that have an adapter, each once, with where they stand."""
    for owner in list(model.modules()):
        for name, child in list(owner.named_children()):
            if hasattr(child, "merge") and hasattr(child, "get_base_layer"):
                yield owner, name, child


def _untie(rag: Rag, config: TrainConfig) -> None:
    encoder = rag.encoder
    alone = "question_encoder" in config.train and "passage_encoder" not in config.train
    if alone and isinstance(encoder, CompactEncoder) and encoder.asking is encoder.layers:
        encoder.asking = copy.deepcopy(encoder.layers)
        rag.model.question_encoder = CompactVectors(encoder, side="questions")


def _begin(rag: Rag, config: TrainConfig) -> None:
    """What a fusion has of its own to learn, where the model has none yet.

    Raises:
        UsageError: It is to be used and not to be learned, or the model has no place for it.
    """
    model, encoder = rag.model, rag.encoder
    if "ranks" in config.train and model.ranks is None:
        model.ranks = RankWeights([1.0] * config.k).to(model.generator.device)
    if not config.objectives.get("attention_fusion") or model.attention is not None:
        return
    if "attention" not in config.train:
        raise UsageError(
            "the objective attention_fusion needs attention over vectors, and this model has none",
            hint="put attention under train",
        )
    if encoder is not None:  # without one the run ends with what it says of encoders
        model.attention = untrained(model.generator, encoder.dimension)


def _learning(model: RagModel, part: str) -> Any:
    """What of the model a part is; the temperature is a parameter, the others are modules."""
    found = model.log_temperature if part == "temperature" else getattr(model, part)
    if found is None:
        raise UsageError(
            f"train names {part}, and this model has none",
            hint="leave it out of `train`, or start from a model with that encoder",
        )
    if part == "temperature" and model.checkpoint is not None:
        return torch.empty(0)  # transformers' format has no place for one
    return found


def _adapt(model: RagModel, settings: AdapterSettings) -> None:
    """Low-rank adapters beside the layers of the parts that learn (Hu et al., 2022, "LoRA")."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise DependencyError(
            "adapters need the package peft", hint="pip install 'consilience[train]'"
        ) from error
    chosen = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear)
        and name.split(".")[-1] in settings.targets
        and layer.weight.requires_grad
    ]
    if not chosen:
        raise UsageError(
            f"no layer that learns ends in one of {', '.join(settings.targets)}",
            hint="set adapter.targets to ends of names of linear layers of this model",
        )
    whole = [w for name, w in model.named_parameters() if w.requires_grad and _of_the_sum(name)]
    model.requires_grad_(False)
    how = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=chosen)
    inject_adapter_in_model(how, model)
    for weight in whole:
        weight.requires_grad_(True)


def _of_the_sum(name: str) -> bool:
    """Whether a weight is the sum's own, too small to have an adapter."""
    return name == "log_temperature" or name.startswith(("attention.", "ranks."))


def _freeze(model: RagModel, prefixes: tuple[str, ...]) -> None:
    for prefix in prefixes:
        found = [weight for name, weight in model.named_parameters() if name.startswith(prefix)]
        if not found:
            raise UsageError(
                f"frozen names {prefix!r}, and no weight begins so",
                hint=f"for instance: {', '.join(_beginnings(model))}",
            )
        for weight in found:
            weight.requires_grad_(False)


def _beginnings(model: RagModel) -> list[str]:
    names = (".".join(name.split(".")[:3]) for name, _ in model.named_parameters())
    return list(dict.fromkeys(names))[:6]


def _drop(model: RagModel, rate: float) -> None:
    found = False
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p, found = rate, True
        for name in _DROPOUTS:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, rate)
                found = True
    if rate and not found:
        raise UsageError(
            f"dropout is {rate}, and this model drops nothing anywhere", hint="leave dropout out"
        )


def _check_points(model: RagModel) -> None:
    """Keep the input of every layer only, and compute the rest again on the way back."""
    modules: Iterator[Any] = model.modules()
    for module in modules:
        if isinstance(module, EncoderStack):
            module.checkpointing = True
        elif hasattr(module, "gradient_checkpointing_enable") and not _inside(module, model):
            module.gradient_checkpointing_enable()


def _inside(module: Any, model: RagModel) -> bool:
    """Whether a larger model of transformers holds it and passes the word on."""
    larger: Iterator[Any] = (
        one for one in model.modules() if hasattr(one, "gradient_checkpointing_enable")
    )
    return any(one is not module and module in list(one.modules()) for one in larger)
