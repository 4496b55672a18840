"""A student cut out of a teacher: fewer layers, and maybe a narrower model, from its own weights.

Layers are taken at even distances, the last one always (Sanh et al., 2019, "DistilBERT", section 3,
start from every second layer). A narrower student sees what the teacher sees in the directions in
which its word vectors differ most:

    P [h, g]  the first g principal directions of the word vectors, orthonormal
    x' = x P,   W' = P^T W P,   whole heads and the strongest neurons of the feed-forward are kept

which is a place to start from, not yet a model: the norms and the neurons left out are not made up
for. Only models of this package's own format can be cut.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from consilience.encoding.folder import ModelConfig, ModelFolder, write_folder
from consilience.errors import UsageError
from consilience.model.loading import tensors_of
from consilience.model.rag import Rag
from consilience.training.config import DistilSettings

STACKS = {
    "retriever": "encoder_layers",
    "reader": "encoder_layers",
    "questions": "encoder_layers",
    "decoder": "decoder_layers",
}
"""The setting that says how many layers each stack has."""


def cut_student(teacher: Rag, settings: DistilSettings, place: Path) -> Path:
    """Write a student as a model folder.

    Args:
        teacher: A model of this package's own format.
        settings: The student's sizes.
        place: The folder; a student that is there already stays as it is.

    Returns:
        The folder.

    Raises:
        UsageError: The teacher is of another format, or the student would be larger than it.
    """
    origin = teacher.parts.origin
    if not isinstance(origin, ModelFolder):
        raise UsageError(
            "only a model of this package's own format can be cut",
            hint="name a student of the same tokenizer under `model`, and leave out its sizes",
        )
    if not (place / "manifest.json").is_file():
        config = _sizes(origin.config, settings)
        tensors = dict(tensors_of(teacher.parts))
        tokenizer = (origin.path / "tokenizer.json").read_text(encoding="utf-8")
        write_folder(place, config, cut_tensors(tensors, origin.config, config), tokenizer)
    return place


def _sizes(teacher: ModelConfig, settings: DistilSettings) -> ModelConfig:
    width = settings.hidden_size or teacher.hidden_size
    head = teacher.hidden_size // teacher.heads
    student = replace(
        teacher,
        encoder_layers=settings.encoder_layers or teacher.encoder_layers,
        decoder_layers=settings.decoder_layers or teacher.decoder_layers,
        hidden_size=width,
        heads=width // head,
        intermediate_size=teacher.intermediate_size * width // teacher.hidden_size,
    )
    for name in ("encoder_layers", "decoder_layers", "hidden_size"):
        if getattr(student, name) > getattr(teacher, name):
            raise UsageError(
                f"distil.{name} is {getattr(student, name)}, and the teacher has "
                f"{getattr(teacher, name)}",
                hint="a student is no larger than its teacher",
            )
    if width % head:
        raise UsageError(
            f"distil.hidden_size is {width}, and the teacher's heads have {head} dimensions",
            hint=f"take a multiple of {head}",
        )
    return student


def kept_layers(had: int, wanted: int) -> list[int]:
    """Which layers stay: at even distances, the last always.

    Example:
        >>> kept_layers(6, 2), kept_layers(6, 4), kept_layers(3, 1)
        ([2, 5], [0, 2, 3, 5], [2])
    """
    return [(place + 1) * had // wanted - 1 for place in range(wanted)]


def cut_tensors(
    tensors: Mapping[str, Tensor], teacher: ModelConfig, student: ModelConfig
) -> dict[str, Tensor]:
    """The student's weights, by name.

    Args:
        tensors: The teacher's, as a model folder holds them.
        teacher: Its sizes.
        student: The student's.
    """
    kept = dict(_fewer_layers(tensors, teacher, student))
    if student.hidden_size == teacher.hidden_size:
        return kept
    return dict(_narrower(kept, student.hidden_size, student.intermediate_size))


def _fewer_layers(
    tensors: Mapping[str, Tensor], teacher: ModelConfig, student: ModelConfig
) -> Iterator[tuple[str, Tensor]]:
    for name, value in tensors.items():
        stack, _, rest = name.partition(".")
        if not rest.startswith("layer."):
            yield name, value
            continue
        had, wanted = (getattr(config, STACKS[stack]) for config in (teacher, student))
        layer, _, inner = rest.removeprefix("layer.").partition(".")
        stays = kept_layers(had, wanted)
        if int(layer) in stays:
            yield f"{stack}.layer.{stays.index(int(layer))}.{inner}", value


def _narrower(
    tensors: Mapping[str, Tensor], width: int, neurons: int
) -> Iterator[tuple[str, Tensor]]:
    """The weights of a student of `width` dimensions whose feed-forward has `neurons`."""
    basis = principal_directions(tensors["embeddings.word_embeddings.weight"].float(), width)
    strongest = {
        name.removesuffix("intermediate.dense.weight"): _strongest(value.float(), neurons)
        for name, value in tensors.items()
        if name.endswith("intermediate.dense.weight")
    }
    for name, value in tensors.items():
        layer = next((one for one in strongest if name.startswith(one)), "")
        cut = _cut(name, value.float(), basis, strongest.get(layer, torch.empty(0)))
        yield name, cut.to(value.dtype).contiguous()


def principal_directions(vectors: Tensor, count: int) -> Tensor:
    """The directions in which `[n, h]` vectors differ most, orthonormal columns, `[h, count]`."""
    centred = vectors - vectors.mean(0)
    directions: Tensor = torch.linalg.eigh(centred.T @ centred).eigenvectors
    return directions.flip(1)[:, :count].contiguous()


def _strongest(weight: Tensor, count: int) -> Tensor:
    """Places of the neurons with the longest weights, ascending, `[count]`."""
    longest: Tensor = weight.norm(dim=1).topk(count).indices
    return longest.sort().values


def _cut(name: str, value: Tensor, basis: Tensor, neurons: Tensor) -> Tensor:
    """One weight in the student's dimensions; the model's width is cut wherever it stands."""
    width, narrow = basis.shape
    if "LayerNorm.weight" in name:
        return torch.diagonal(basis.T @ torch.diag(value) @ basis)
    if "intermediate.dense" in name:  # width to neurons
        chosen = value[neurons]
        return chosen @ basis if value.dim() > 1 else chosen
    if name.endswith("output.dense.weight") and value.shape[1] != width:  # neurons to width
        return basis.T @ value[:, neurons]
    if any(f".{one}." in name for one in ("query", "key", "value")):  # width to whole heads
        return value[:narrow] @ basis if value.dim() > 1 else value[:narrow]
    if "attention.output.dense.weight" in name:  # heads to width
        return basis.T @ value[:, :narrow]
    return _turned(value, basis, width)


def _turned(value: Tensor, basis: Tensor, width: int) -> Tensor:
    """A weight from, to, or of vectors of the model's width."""
    if value.dim() == 1:
        return basis.T @ value if len(value) == width else value
    if value.shape == (width, width):
        return basis.T @ value @ basis
    return value @ basis if value.shape[1] == width else value
