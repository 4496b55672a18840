"""Checkpoints of transformers' RAG classes, read and written.

    config.json                   of the whole, with those of its parts inside
    model.safetensors             rag.question_encoder.*, rag.generator.*, rag.ctx_encoder.*
    generation_config.json        how the generator writes
    question_encoder_tokenizer/   what the question encoder reads
    generator_tokenizer/          what the generator reads and writes

This module knows that shape and how to tell what is wrong with it. It knows nothing of losses,
retrieval or decoding. Classes are looked up in transformers' own tables by the type of a
configuration, weights of the old `pytorch_model.bin` are read as tensors only, and code that lies
beside a checkpoint is never run. A passage encoder, which transformers writes and then forgets, is
kept, with its configuration under `ctx_encoder` in `config.json`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal
from zipfile import is_zipfile

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    StrictDataclassError,
)
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    MODEL_MAPPING,
    AutoTokenizer,
    DPRContextEncoder,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RagConfig,
)

from consilience.errors import DamagedError, MissingError, UsageError

Architecture = Literal["token", "sequence", "model"]

ARCHITECTURES: Mapping[Architecture, str] = {
    "token": "RagTokenForGeneration",
    "sequence": "RagSequenceForGeneration",
    "model": "RagModel",
}
"""What `architectures` in a `config.json` says of the sum."""

WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Where weights may lie; the first that is there is read."""

NOT_WEIGHTS = (".position_ids",)
"""Endings of buffers that older versions of transformers wrote among the weights."""

_HUB_PATTERNS = ("*.json", "*.txt", "*.model", "*.safetensors", "pytorch_model*.bin")
_READERS = ("question_encoder", "generator")
_COPY = "copy the checkpoint again from where it came"
_NAMES = "name a folder with a config.json, or a hub id such as facebook/rag-token-nq"
# What torch raises for a file that holds more than tensors; its module is not imported by name,
# so that nothing in this package can unpickle.
_NOT_TENSORS: type[Exception] = torch.serialization.pickle.UnpicklingError  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class TransformersRag:
    """A checkpoint in memory.

    Attributes:
        config: Of the whole.
        question_encoder: x to q(x).
        generator_model: p(y | x, d), an encoder-decoder of transformers.
        question_tokenizer: None when the checkpoint has none.
        generator_tokenizer: None when the checkpoint has none.
        passage_encoder: Set when passages were trained along.
        generation: How answers are written; None when the checkpoint does not say.
    """

    config: RagConfig
    question_encoder: PreTrainedModel
    generator_model: PreTrainedModel
    question_tokenizer: PreTrainedTokenizerBase | None = None
    generator_tokenizer: PreTrainedTokenizerBase | None = None
    passage_encoder: PreTrainedModel | None = None
    generation: GenerationConfig | None = None

    @property
    def architecture(self) -> Architecture:
        """Which sum the checkpoint was trained for, as its configuration says."""
        named = self.config.architectures or []
        return next((key for key, name in ARCHITECTURES.items() if name in named), "token")


def load_transformers_rag(
    path_or_id: str | Path, *, config: RagConfig | None = None, dtype: torch.dtype | None = None
) -> TransformersRag:
    """Read a checkpoint of `RagTokenForGeneration`, `RagSequenceForGeneration` or `RagModel`.

    Args:
        path_or_id: A folder, or the id of a model on the hub, such as `facebook/rag-token-nq`,
            which is downloaded unless it is there already.
        config: Instead of the one that the checkpoint holds.
        dtype: Of the weights; None keeps the one they are stored in.

    Returns:
        The parts, in evaluation mode.

    Raises:
        MissingError: No such folder, no weights in it, or a hub that cannot be reached.
        DamagedError: A tensor is missing, unknown or of another shape than the configuration
            says, a tokenizer has more tokens than the embeddings, or a file cannot be read.
        UsageError: The folder holds another kind of model, or parts of unknown types.
    """
    folder = checkpoint_folder(path_or_id)
    config = config or read_config(folder)
    parts = _Parts.of(_tensors(folder), folder)
    asking, writing = read_tokenizers(folder)
    rag = TransformersRag(
        config=config,
        question_encoder=parts.build("question_encoder", config.question_encoder, dtype),
        generator_model=parts.build("generator", config.generator, dtype),
        question_tokenizer=asking,
        generator_tokenizer=writing,
        passage_encoder=parts.passage_encoder(config, dtype),
        generation=_generation(folder),
    )
    _check_vocabulary(rag.question_encoder, rag.question_tokenizer, "question_encoder", folder)
    _check_vocabulary(rag.generator_model, rag.generator_tokenizer, "generator", folder)
    return rag


def save_transformers_rag(
    rag: TransformersRag, path: str | Path, *, architecture: Architecture | None = None
) -> None:
    """Write a checkpoint that transformers' own classes load, and `load_transformers_rag` too.

    Every file is written beside the folder first and then moved in, the configuration last, so
    that a checkpoint that is replaced is whole before and after.

    Args:
        rag: The parts.
        path: The folder, made if it is not there; files of other names stay.
        architecture: Which class it is written for; None for what the configuration says.

    Raises:
        UsageError: The path is a file.
    """
    path = Path(path)
    if path.is_file():
        raise UsageError(f"{path} is a file", hint="name a folder to save the checkpoint in")
    path.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".saving-", dir=path) as folder:
        _write(rag, Path(folder), architecture or rag.architecture)
        _move(Path(folder), path)


def checkpoint_folder(path_or_id: str | Path) -> Path:
    """The folder of a checkpoint: as named, or the copy of a hub model.

    Raises:
        MissingError: There is neither, or the hub cannot be reached.
    """
    folder = Path(path_or_id)
    if folder.is_dir():
        return folder
    if str(path_or_id).count("/") != 1 or folder.is_absolute():
        raise MissingError(
            f"no folder {str(path_or_id)!r}",
            hint=_NAMES,
        )
    return _downloaded(str(path_or_id))


def read_config(folder: Path) -> RagConfig:
    """The configuration of a checkpoint.

    Raises:
        MissingError: There is none.
        DamagedError: It is not JSON, or a setting has a value of a wrong type.
        UsageError: It is another kind of model's, or a part is of a type unknown to transformers.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise MissingError(f"no checkpoint in {folder}: it holds no config.json", hint=_COPY)
    settings = _json(path)
    if settings.get("model_type") != "rag":
        raise UsageError(
            f"{path} is of a model of type {settings.get('model_type')!r}, not 'rag'",
            hint="to join a question encoder and a generator, load them with "
            "from_pretrained_question_encoder_generator",
        )
    try:
        return RagConfig.from_dict(settings)
    except KeyError as error:
        raise _unknown_type(error.args[0], path) from error
    except StrictDataclassError as error:
        raise DamagedError(f"{path}: {' '.join(str(error).split())}", hint=_COPY) from error


def read_tokenizers(
    folder: Path, **kwargs: Any
) -> tuple[PreTrainedTokenizerBase | None, PreTrainedTokenizerBase | None]:
    """The question encoder's and the generator's tokenizer; None where there is no folder of one.

    Args:
        folder: Of a checkpoint.
        **kwargs: For `AutoTokenizer.from_pretrained`.

    Raises:
        DamagedError: A folder holds no tokenizer that can be read.
    """
    asking, writing = (_tokenizer(folder / f"{part}_tokenizer", kwargs) for part in _READERS)
    return asking, writing


@dataclass(frozen=True, slots=True)
class _Parts:
    """The weights of a checkpoint, part by part, and the file to name when one is wrong."""

    tensors: Mapping[str, Mapping[str, Tensor]]
    folder: Path

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], folder: Path) -> "_Parts":
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            part, _, rest = name.removeprefix("rag.").partition(".")
            if part not in ("question_encoder", "generator", "ctx_encoder"):
                raise _unexpected(name, folder)
            parts.setdefault(part, {})[rest] = tensor
        return cls(parts, folder)

    def build(self, part: str, config: Any, dtype: torch.dtype | None) -> PreTrainedModel:
        tensors = self.tensors.get(part, {})
        kind = _class_of(part, config, self.folder)
        model, report = kind.from_pretrained(
            None,
            config=config,
            state_dict=dict(tensors),
            dtype=dtype or _dtype_of(tensors.values()),
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        self._check(part, report)
        built: PreTrainedModel = model.eval()
        return built

    def passage_encoder(
        self, config: RagConfig, dtype: torch.dtype | None
    ) -> PreTrainedModel | None:
        """None if the checkpoint has no weights of one.

        transformers writes the weights without a configuration; they are then taken to be shaped
        as the question encoder.
        """
        if "ctx_encoder" not in self.tensors:
            return None
        return self.build("ctx_encoder", _passage_config(config), dtype)

    def _check(self, part: str, report: Mapping[str, Any]) -> None:
        for name in sorted(report["missing_keys"]):
            raise DamagedError(
                f"{_weights(self.folder)} lacks the tensor rag.{part}.{name}", hint=_COPY
            )
        for name, found, wanted in sorted(report["mismatched_keys"]):
            raise DamagedError(
                f"{_weights(self.folder)}: rag.{part}.{name} has the shape {list(found)}, "
                f"config.json says {list(wanted)}",
                hint=_COPY,
            )
        for name in sorted(report["unexpected_keys"]):
            if not name.endswith(NOT_WEIGHTS):
                raise _unexpected(f"rag.{part}.{name}", self.folder)


def _unexpected(name: str, folder: Path) -> DamagedError:
    return DamagedError(
        f"{_weights(folder)} has the tensor {name}, which no part of config.json has a place for",
        hint=_COPY,
    )


def _unknown_type(kind: str, path: Path) -> UsageError:
    return UsageError(
        f"{path} names a part of type {kind!r}, which transformers does not have",
        hint="use a generator of a type such as bart, mbart, t5, mt5 or encoder-decoder",
    )


def _class_of(part: str, config: Any, folder: Path) -> Any:
    if part == "ctx_encoder" and config.model_type == "dpr":
        return DPRContextEncoder
    table = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING if part == "generator" else MODEL_MAPPING
    if type(config) not in table:
        raise UsageError(
            f"{folder / 'config.json'}: the {part} is of type {config.model_type!r}, which is no "
            f"{'encoder-decoder' if part == 'generator' else 'encoder'}",
            hint="use a generator of a type such as bart, mbart, t5, mt5 or encoder-decoder",
        )
    return table[type(config)]


def _passage_config(config: RagConfig) -> Any:
    stored = getattr(config, "ctx_encoder", None)
    if stored is None:
        return config.question_encoder
    kind: Any = type(config.question_encoder)
    return kind.from_dict(stored)


def _dtype_of(tensors: Iterable[Tensor]) -> torch.dtype:
    floating = (tensor.dtype for tensor in tensors if tensor.is_floating_point())
    return next(floating, torch.float32)


def _weights(folder: Path) -> Path:
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise MissingError(
        f"no weights in {folder}: looked for {', '.join(WEIGHTS)}",
        hint=_COPY,
    )


def _tensors(folder: Path) -> dict[str, Tensor]:
    path = _weights(folder)
    if not path.name.endswith(".index.json"):
        return _read(path)
    tensors: dict[str, Tensor] = {}
    for name in _shards(path):
        tensors |= _read(folder / name)
    return tensors


def _shards(index: Path) -> list[str]:
    """The files that an index names, which all lie beside it."""
    names = sorted(set(_json(index).get("weight_map", {}).values()))
    for name in names:
        if Path(name).name != name or not name.endswith((".safetensors", ".bin")):
            raise DamagedError(f"{index} names {name!r} as a file of weights", hint=_COPY)
    return names


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise DamagedError(f"the file of weights {path} is missing", hint=_COPY)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Files of torch before 1.6 are no zip archives and cannot be mapped into memory.
        mapped = is_zipfile(path)
        return dict(torch.load(path, map_location="cpu", weights_only=True, mmap=mapped))
    except (SafetensorError, RuntimeError, ValueError, OSError, EOFError, _NOT_TENSORS) as error:
        reason = str(error).strip().split("\n")[0]
        raise DamagedError(f"{path} cannot be read as tensors: {reason}", hint=_COPY) from error


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedError(f"{path} is not JSON: {error}", hint=_COPY) from error
    if not isinstance(found, dict):
        raise DamagedError(f"{path} is not a JSON object", hint=_COPY)
    return found


def _tokenizer(folder: Path, kwargs: Mapping[str, Any]) -> PreTrainedTokenizerBase | None:
    if not folder.is_dir():
        return None
    try:
        loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, **(dict(kwargs) | {"trust_remote_code": False, "local_files_only": True})
        )
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        raise DamagedError(f"{folder} holds no tokenizer: {reason}", hint=_COPY) from error
    return loaded


def _generation(folder: Path) -> GenerationConfig | None:
    path = folder / "generation_config.json"
    return GenerationConfig.from_dict(_json(path)) if path.is_file() else None


def _check_vocabulary(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, part: str, folder: Path
) -> None:
    if tokenizer is None:
        return
    embeddings: Any = model.get_input_embeddings()
    rows = embeddings.num_embeddings
    last = max(tokenizer.get_vocab().values())
    if last >= rows:
        raise DamagedError(
            f"{folder / f'{part}_tokenizer'} has the token id {last}, "
            f"but the embeddings of the {part} in {_weights(folder).name} have {rows} rows",
            hint="take the tokenizer that the weights were trained with",
        )


def _write(rag: TransformersRag, folder: Path, architecture: Architecture) -> None:
    config = RagConfig.from_dict(rag.config.to_dict())
    config.architectures = [ARCHITECTURES[architecture]]
    config.question_encoder = rag.question_encoder.config
    config.generator = rag.generator_model.config
    config.dtype = rag.generator_model.dtype
    if rag.passage_encoder is not None:
        config.ctx_encoder = rag.passage_encoder.config.to_dict()
    config.save_pretrained(folder)
    prefix = "" if architecture == "model" else "rag."
    save_file(_state(rag, prefix), folder / "model.safetensors", metadata={"format": "pt"})
    _write_the_rest(rag, folder)


def _write_the_rest(rag: TransformersRag, folder: Path) -> None:
    if rag.generation is not None:
        rag.generation.save_pretrained(folder)
    if rag.question_tokenizer is not None:
        rag.question_tokenizer.save_pretrained(folder / "question_encoder_tokenizer")
    if rag.generator_tokenizer is not None:
        rag.generator_tokenizer.save_pretrained(folder / "generator_tokenizer")


def _state(rag: TransformersRag, prefix: str) -> dict[str, Tensor]:
    """Every weight once, under the first of its names, as safetensors wants it."""
    parts = {
        "question_encoder": rag.question_encoder,
        "generator": rag.generator_model,
        "ctx_encoder": rag.passage_encoder,
    }
    state: dict[str, Tensor] = {}
    for part, model in parts.items():
        for name, tensor in _distinct(model).items():
            state[f"{prefix}{part}.{name}"] = tensor.detach().contiguous()
    return state


def _distinct(model: PreTrainedModel | None) -> dict[str, Tensor]:
    """The state of a model without the second names of weights that are shared."""
    if model is None:
        return {}
    second = model.all_tied_weights_keys
    kept: dict[str, Tensor] = {}
    seen: set[tuple[int, torch.Size]] = set()
    for name, value in sorted(model.state_dict().items(), key=lambda item: item[0] in second):
        memory = (value.data_ptr(), value.shape)
        if memory not in seen:
            kept[name] = value
        seen.add(memory)
    return kept


def _move(made: Path, path: Path) -> None:
    """Move files to where they belong, the configuration last, and drop weights of other names."""
    files = sorted(
        (one for one in made.rglob("*") if one.is_file()), key=lambda one: one.name == "config.json"
    )
    for file in files:
        target = path / file.relative_to(made)
        target.parent.mkdir(exist_ok=True)
        file.replace(target)
    for name in WEIGHTS[1:]:
        (path / name).unlink(missing_ok=True)


def _downloaded(name: str) -> Path:
    try:
        return Path(snapshot_download(name, allow_patterns=list(_HUB_PATTERNS)))
    except HFValidationError as error:
        raise MissingError(f"{name!r} is neither a folder nor a hub id", hint=_NAMES) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise MissingError(
            f"the model {name!r} is not on this machine and the hub did not give it: "
            f"{str(error).strip().splitlines()[0]}",
            hint=f"check the name and the connection, or fetch it elsewhere with `hf download "
            f"{name}` and name the folder",
        ) from error
