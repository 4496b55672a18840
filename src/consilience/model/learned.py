"""What a sum learned beside its generator and its encoders, as tensors and back.

That is the attention over passage vectors (`attention.*`) and the weights of ranks, `ranks.learned`
or, where training leaves them alone, `ranks.given`. In our own format they stand among the other
weights; beside a checkpoint of transformers, which has no place for them, they are a file of their
own that transformers does not look at. Sizes are those of the tensors, so nothing else need be
kept.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from consilience.errors import DamagedError
from consilience.model.attention_fusion import AttentionFusion
from consilience.model.averaging import RankWeights
from consilience.model.rag_model import RagModel

FILE = "sum.safetensors"
_COPY = "copy the model again from where it came"


def learned_of(model: RagModel) -> dict[str, Tensor]:
    """The tensors by name; none where the model has neither attention nor weights of ranks."""
    found = {}
    if model.attention is not None:
        state = model.attention.state_dict()
        found = {f"attention.{name}": value.detach().contiguous() for name, value in state.items()}
    if model.ranks is not None:
        weights = model.ranks.log_weights
        found["ranks.learned" if weights.requires_grad else "ranks.given"] = weights.detach()
    return found


def restore(model: RagModel, tensors: Mapping[str, Tensor]) -> None:
    """Give a model what `learned_of` found; other names are passed over.

    Raises:
        DamagedError: The tensors do not fit together.
    """
    attention = {name: value for name, value in tensors.items() if name.startswith("attention.")}
    if attention:
        model.attention = _attention(attention)
    for name in ("ranks.learned", "ranks.given"):
        if name in tensors:
            model.ranks = _ranks(tensors[name], learned=name == "ranks.learned")


def save_beside(model: RagModel, folder: Path) -> None:
    """Write the tensors into a folder, all or nothing; an older file goes if there are none."""
    tensors, path = learned_of(model), folder / FILE
    if not tensors:
        path.unlink(missing_ok=True)
        return
    part = folder / f".{FILE}.part"
    save_file(tensors, part)
    part.replace(path)


def load_beside(model: RagModel, folder: Path) -> None:
    """Give a model what `save_beside` wrote; without a file the model stays as it is.

    Raises:
        DamagedError: The file cannot be read, or its tensors do not fit together.
    """
    path = folder / FILE
    if not path.is_file():
        return
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise DamagedError(f"{path} cannot be read as tensors: {error}", hint=_COPY) from error
    restore(model, tensors)


def _attention(tensors: Mapping[str, Tensor]) -> AttentionFusion:
    shapes = {name.removeprefix("attention."): list(one.shape) for name, one in tensors.items()}
    sizes = shapes.get("compare.weight", [])
    if len(sizes) != 2 or shapes != {"compare.weight": sizes, "project.weight": sizes}:
        raise DamagedError(f"the weights of an attention fusion have shapes {shapes}", hint=_COPY)
    fusion = AttentionFusion(*sizes)
    fusion.load_state_dict(
        {name.removeprefix("attention."): one.float() for name, one in tensors.items()}
    )
    return fusion.eval()


def _ranks(log_weights: Tensor, *, learned: bool) -> RankWeights:
    if log_weights.dim() != 1 or not len(log_weights) or not bool(log_weights.isfinite().all()):
        shape = list(log_weights.shape)
        raise DamagedError(f"the weights of ranks are not numbers, shape {shape}", hint=_COPY)
    ranks = RankWeights([1.0] * len(log_weights), learned=learned)
    with torch.no_grad():
        ranks.log_weights.copy_(log_weights)
    return ranks
