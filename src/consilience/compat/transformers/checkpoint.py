"""What the three model classes have in common: how they are made, loaded and saved."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForSeq2SeqLM,
    GenerationConfig,
    PreTrainedModel,
    RagConfig,
)

from consilience.compat.transformers.opening import keeps_old_habits
from consilience.compat.transformers.retriever import RagRetriever, changed
from consilience.errors import UsageError
from consilience.model.checkpoints import checkpoint_folder, load_transformers_rag, read_config

Placement = torch.device | str | None


class RagPreTrainedModel(PreTrainedModel):  # type: ignore[no-untyped-call]
    """A question encoder, a generator, and what saves and loads both.

    Checkpoints are those of transformers, so either library reads what the other wrote. A passage
    encoder that was trained along is part of them.
    """

    config_class = RagConfig
    config: RagConfig
    base_model_prefix = "rag"
    _supports_sdpa = True
    _supports_flash_attn = True

    @property
    def hf_compat(self) -> bool:
        """Whether losses and answers are those of transformers, faults included."""
        return keeps_old_habits(self.config)

    @classmethod
    def from_pretrained(  # type: ignore[override] # the other arguments are transformers' own
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        retriever: RagRetriever | None = None,
        config: RagConfig | None = None,
        dtype: torch.dtype | None = None,
        device_map: Placement = None,
        **settings: Any,
    ) -> Self:
        """Load a checkpoint, in evaluation mode.

        Args:
            pretrained_model_name_or_path: A folder or a hub id.
            retriever: Where passages come from; None for a model that is given contexts.
            config: Instead of the checkpoint's.
            dtype: Of the weights; None keeps the one they are stored in.
            device_map: The one device that the model is put on.
            **settings: Change the configuration, such as `n_docs`, `hf_compat`.

        Raises:
            MissingError, DamagedError, UsageError: As `load_transformers_rag`.
        """
        dtype = settings.pop("torch_dtype", dtype)
        folder = checkpoint_folder(pretrained_model_name_or_path)
        config = changed(config or read_config(folder), settings)
        found = load_transformers_rag(folder, config=config, dtype=dtype)
        model = cls(config, found.question_encoder, found.generator_model, retriever)
        model._take(found.passage_encoder, found.generation)
        torch.nn.Module.eval(model)
        return model if device_map is None else torch.nn.Module.to(model, torch.device(device_map))

    @classmethod
    def from_pretrained_question_encoder_generator(
        cls,
        question_encoder_pretrained_model_name_or_path: str | Path | None = None,
        generator_pretrained_model_name_or_path: str | Path | None = None,
        retriever: RagRetriever | None = None,
        **settings: Any,
    ) -> Self:
        """Join a question encoder and a generator that were not trained together.

        Args:
            question_encoder_pretrained_model_name_or_path: A folder or a hub id.
            generator_pretrained_model_name_or_path: A folder or a hub id.
            retriever: Where passages come from.
            **settings: `config`, or settings of it; those that begin with `question_encoder_` or
                `generator_` go to the parts, and `…_model` is a part that was loaded already.

        Raises:
            UsageError: A part is neither named nor given.
        """
        asking = _taken(settings, "question_encoder_")
        writing = _taken(settings, "generator_")
        question = _part(AutoModel, question_encoder_pretrained_model_name_or_path, asking)
        generator = _part(AutoModelForSeq2SeqLM, generator_pretrained_model_name_or_path, writing)
        config = settings.pop("config", None) or joint_config(question, generator, settings)
        return cls(config, question, generator, retriever)

    def save_pretrained(  # type: ignore[override] # the other arguments are transformers' own
        self, save_directory: str | Path, **how: Any
    ) -> None:
        """Write a checkpoint; see `PreTrainedModel.save_pretrained` for the other arguments.

        The passages and tokenizers of a retriever are saved by the retriever.
        """
        passage_encoder = self._rag().ctx_encoder
        if passage_encoder is not None:
            self.config.ctx_encoder = passage_encoder.config.to_dict()
        super().save_pretrained(save_directory, **how)

    def resize_token_embeddings(self, *args: Any, **how: Any) -> Any:
        """Those of the generator; see `PreTrainedModel.resize_token_embeddings`."""
        return self._rag().generator.resize_token_embeddings(*args, **how)

    def _take(
        self, passage_encoder: PreTrainedModel | None, generation: GenerationConfig | None
    ) -> None:
        """What a checkpoint holds beside the two parts.

        transformers forgets the passage encoder and scores with the index's vectors; with
        `hf_compat` it is kept and saved again, but used only once it is set for training.
        """
        model = self._rag()
        model.ctx_encoder = passage_encoder
        model.context_encoder_training = passage_encoder is not None and not self.hf_compat
        if generation is not None and self.can_generate():
            self.generation_config = generation

    def _rag(self) -> Any:
        """The `RagModel`: this one or the one inside."""
        return getattr(self, "rag", self)


def joint_config(
    question_encoder: nn.Module | None, generator: nn.Module | None, settings: Mapping[str, Any]
) -> RagConfig:
    """The configuration of two parts.

    Raises:
        UsageError: One is not there.
    """
    if question_encoder is None or generator is None:
        raise UsageError(
            "neither a configuration nor both a question encoder and a generator",
            hint="pass config=…, or question_encoder=… and generator=…",
        )
    asking: Any = question_encoder.config
    writing: Any = generator.config
    joined = RagConfig.from_question_encoder_generator_configs(asking, writing, **settings)
    assert isinstance(joined, RagConfig)
    return joined


def _taken(settings: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Take the settings of one part out of all."""
    names = [name for name in settings if name.startswith(prefix)]
    return {name.removeprefix(prefix): settings.pop(name) for name in names}


def _part(kind: Any, name: str | Path | None, settings: dict[str, Any]) -> Any:
    given = settings.pop("model", None)
    if given is not None:
        return given
    if name is None:
        raise UsageError(
            "a question encoder and a generator are needed, received only one name",
            hint="name a folder or a hub id for each, or pass question_encoder_model=… or "
            "generator_model=…",
        )
    return kind.from_pretrained(name, trust_remote_code=False, **settings)
