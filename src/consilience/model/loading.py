"""From a name to the parts of a `Rag`, and back to a folder.

Three kinds of names: none, for the model that ships; a folder that `Rag.save` wrote; and a folder
or hub id of a checkpoint of transformers' RAG classes. Which one a folder is, its files say:
`manifest.json` is ours. transformers is imported for the last kind only; that takes seconds.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from consilience.encoding import Encoder
from consilience.encoding.compact import CompactEncoder, build_encoder, load_encoder
from consilience.encoding.folder import ModelFolder, open_folder, write_folder
from consilience.errors import MissingError, UsageError
from consilience.generation import CompactGenerator
from consilience.generation.compact import build_generator
from consilience.model.confidence import SUPPORT, Confidence
from consilience.model.decoding import DecodingOptions
from consilience.model.learned import learned_of, load_beside, restore, save_beside
from consilience.model.placing import device_named, place
from consilience.model.rag_model import RagModel
from consilience.model.vectors import CompactVectors
from consilience.retrieval import Mode

if TYPE_CHECKING:
    from consilience.generation.remote import RemoteGenerator
    from consilience.model.checkpoints import TransformersRag

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True, slots=True)
class Settings:
    """What answering needs to know beside weights; see `ModelConfig` for the meaning of each.

    Attributes:
        support_thresholds: Below this support an answer is withheld, by language of the question.
        hybrid_weights: Share of the dense half in a hybrid score, by language of the question.
        mode: How passages are found when the question does not say.
        confidence: What the confidence in an answer is made of.
        decoding: What the model itself asks of a search.
        temperature: Of the prior, for a generator behind an endpoint; a `RagModel` has its own.
    """

    support_thresholds: Mapping[str, float] = field(default_factory=dict)
    hybrid_weights: Mapping[str, float] = field(default_factory=dict)
    confidence: Confidence = SUPPORT
    mode: Mode = "hybrid"
    decoding: DecodingOptions = field(default_factory=DecodingOptions)
    temperature: float = 1.0

    def threshold_for(self, language: str) -> float:
        """The least support that an answer to a question in `language` needs; empty is `other`."""
        return self.support_thresholds.get(language or "other", 0.0)


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that a `Rag` is made of.

    Attributes:
        model: The sum with its generator, or a generator behind an endpoint.
        encoder: Of questions and passages; None for a model that searches by words only.
        settings: How it answers.
        origin: Where it was loaded from; None for parts that were joined in Python.
    """

    model: "RagModel | RemoteGenerator"
    encoder: Encoder | None = None
    settings: Settings = field(default_factory=Settings)
    origin: "ModelFolder | TransformersRag | None" = None


def load_parts(
    name: str | Path | None = None, *, device: str | None = None, exact: bool = False
) -> Parts:
    """The parts of a model.

    Args:
        name: A folder, a hub id such as `facebook/rag-token-nq`, or None for the model that ships.
        device: Where they compute, see `model.placing`.
        exact: Whether weights are what was stored, in float32 where they would be rounded to what
            is fastest here. What learns begins with them.

    Raises:
        UsageError: There is no such device.
        MissingError: There is no such model.
        DamagedError: A file of it is missing or was changed.
        VersionError: A newer version wrote it.
    """
    where = device_named(device)
    if is_checkpoint(name):
        parts = _checkpoint(str(name))
    else:
        parts = _compact(open_folder(_folder(name)), torch.float32 if exact else None)
    if where is not None:
        place(parts.model, parts.encoder, where)
    return parts


def load_any_encoder(name: str | Path | None = None) -> Encoder:
    """The retriever's half of a model; raises as `load_parts`.

    Raises:
        UsageError: The model has no encoder of passages.
    """
    where = device_named(None)
    found = is_checkpoint(name)
    encoder = _checkpoint(str(name)).encoder if found else load_encoder(_folder(name))
    if encoder is None:
        raise UsageError(
            f"the checkpoint {name} holds no encoder of passages",
            hint="join it with one in Python: Rag.of(generator, encoder=…)",
        )
    if where is not None:
        place(None, encoder, where)
    return encoder


def is_checkpoint(name: str | Path | None) -> bool:
    """Whether a name is that of a checkpoint of transformers."""
    if name is None:
        return False
    folder = Path(name)
    if folder.is_dir():
        return (folder / "config.json").is_file() and not (folder / "manifest.json").is_file()
    return isinstance(name, str) and _HUB_ID.fullmatch(name) is not None


def _folder(name: str | Path | None) -> Path | None:
    if name is None or Path(name).is_dir():
        return None if name is None else Path(name)
    raise MissingError(
        f"no model folder {str(name)!r}",
        hint="name a folder that `Rag.save` wrote, a hub id such as facebook/rag-token-nq, or "
        "leave out --model",
    )


def _compact(folder: ModelFolder, dtype: torch.dtype | None) -> Parts:
    tensors, config = folder.tensors(), folder.config
    encoder = build_encoder(folder, tensors, dtype=dtype)
    generator = build_generator(folder, tensors, embeddings=encoder.embeddings, dtype=dtype)
    model = RagModel(
        generator,
        question_encoder=CompactVectors(encoder, side="questions"),
        passage_encoder=CompactVectors(encoder, side="passages"),
        temperature=config.prior_temperature,
    )
    restore(model, tensors)
    confidence = Confidence.of_settings(config.confidence)
    settings = Settings(config.support_thresholds, config.hybrid_weights, confidence)
    return Parts(model.eval(), encoder, settings, folder)


def _checkpoint(name: str) -> Parts:
    """A checkpoint of transformers."""
    from consilience.model.checkpoints import checkpoint_folder, load_transformers_rag
    from consilience.model.text_encoder import TextEncoder
    from consilience.model.vectors import PooledEncoder

    folder = checkpoint_folder(name)
    rag = load_transformers_rag(folder)
    model, encoder = sum_of(rag, folder), None
    if rag.question_tokenizer is not None and rag.passage_encoder is not None:
        told = PooledEncoder(rag.passage_encoder)
        encoder = TextEncoder(PooledEncoder(rag.question_encoder), told, rag.question_tokenizer)
    mode: Mode = "bm25" if encoder is None else "dense"
    return Parts(model, encoder, Settings(mode=mode, decoding=_decoding(rag)), rag)


def sum_of(rag: "TransformersRag", folder: Path) -> RagModel:
    """The sum of a checkpoint; the weights are shared with it.

    Its prior is the softmax of inner products as they are: the format has no temperature, so none
    is learned.

    Args:
        rag: The checkpoint.
        folder: Where it lies; what the sum learned beside it is found there.
    """
    from consilience.generation.seq2seq import Seq2SeqGenerator
    from consilience.model.vectors import PooledEncoder

    model = RagModel(
        Seq2SeqGenerator(rag.generator_model, rag.generator_tokenizer, prompt="rag"),
        question_encoder=PooledEncoder(rag.question_encoder),
        passage_encoder=rag.passage_encoder and PooledEncoder(rag.passage_encoder),
    )
    model.log_temperature.requires_grad_(False)
    model.checkpoint = rag
    load_beside(model, folder)
    return model.eval()


def save_checkpoint(model: RagModel, path: str | Path) -> None:
    """Write a model that came from a checkpoint of transformers as one.

    Raises:
        UsageError: It did not, or it has a temperature.
    """
    if model.checkpoint is None:
        raise UsageError(
            "this model does not come from a checkpoint of transformers' RAG classes",
            hint="save it with Rag.save",
        )
    temperature = float(model.temperature.detach())
    if abs(temperature - 1.0) > 1e-6:
        raise UsageError(
            f"the prior has the temperature {temperature:.4g}, which a checkpoint of transformers "
            "has no place for",
            hint="set model.log_temperature to 0 before training",
        )
    from consilience.model.checkpoints import save_transformers_rag

    save_transformers_rag(model.checkpoint, path)
    save_beside(model, Path(path))


def _decoding(rag: "TransformersRag") -> DecodingOptions:
    """What the checkpoint asks for: tokens that are forced or forbidden, and how length counts."""
    if rag.generation is None:
        return DecodingOptions()
    return DecodingOptions.like_transformers(rag.generation)


def save_parts(parts: Parts, path: Path) -> None:
    """Write a model as it is now, trained further or not, as a folder that `load_parts` reads.

    Raises:
        UsageError: It was joined in Python, so there is no format for the whole, or the folder is
            the one that it was loaded from.
    """
    if isinstance(parts.origin, ModelFolder):
        _save_compact(parts, parts.origin, path)
        return
    if parts.origin is None:
        raise UsageError(
            "this model was joined from parts in Python, and there is no format for the whole",
            hint="save its parts: generator and encoder with their own save_pretrained",
        )
    save_checkpoint(_here(parts), path)


def _save_compact(parts: Parts, folder: ModelFolder, path: Path) -> None:
    if path.resolve() == folder.path.resolve():
        raise UsageError(f"the model was loaded from {path}", hint="save it to another folder")
    tokenizer = (folder.path / "tokenizer.json").read_text(encoding="utf-8")
    config = replace(
        folder.config,
        prior_temperature=float(_here(parts).temperature.detach()),
        support_thresholds=parts.settings.support_thresholds,
        hybrid_weights=parts.settings.hybrid_weights,
        confidence=parts.settings.confidence.to_settings(),
    )
    tensors = dict(tensors_of(parts)) | learned_of(_here(parts))
    write_folder(path, config, tensors, tokenizer)


def _here(parts: Parts) -> RagModel:
    assert isinstance(parts.model, RagModel)  # what has an origin has weights
    return parts.model


def tensors_of(parts: Parts) -> Iterator[tuple[str, torch.Tensor]]:
    """All weights of a model in our own format, under the names of its folder."""
    generator, encoder = _here(parts).generator, parts.encoder
    assert isinstance(generator, CompactGenerator)
    assert isinstance(encoder, CompactEncoder)
    halves: dict[str, torch.nn.Module] = {
        "embeddings": encoder.embeddings,
        "retriever": encoder.layers,
        "reader": generator.reader,
        "decoder": generator.decoder,
    }
    if encoder.asking is not encoder.layers:
        halves["questions"] = encoder.asking
    for half, module in halves.items():
        for name, value in module.state_dict().items():
            yield f"{half}.{name}", value.detach().contiguous()
