"""A model on disk: one folder, every file named in a manifest with its digest.

    config.json        sizes and settings, see `ModelConfig`
    tokenizer.json     the vocabulary
    model.safetensors  embeddings.*, retriever.*, reader.*, decoder.*, maybe questions.*
    manifest.json      the format, how weights are stored, sha256 of each of the others

Nothing is used before its digest was compared, and nothing in a folder can name code: classes are
chosen by this package, never by a file. Retriever and generator live in one file because they share
their embeddings.

Weights are stored as they are (format 1) or with their matrices in eight bits (format 2, see
`encoding.packing`). A model is saved as it is unless somebody asks for eight bits: rounding is for
what is given away, not for what is trained on.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from consilience.errors import DamagedError, MissingError, VersionError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 2
Storage = Literal["plain", "int8"]
FORMATS: dict[Storage, int] = {"plain": 1, "int8": 2}
"""The least format that a reader must know for each way of storing weights."""
SHIPPED = "compact"
FILES = ("config.json", "tokenizer.json", "model.safetensors")
_DIGEST_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes of the layers and settings of the sum.

    Attributes:
        vocabulary_size, hidden_size, heads, intermediate_size, positions: Of every layer.
        encoder_layers: Layers of the retriever's and of the reader's encoder, each.
        decoder_layers: Layers of the decoder.
        passage_tokens: Sub-words of a passage that the retriever reads.
        reader_tokens: Sub-words of a question and a passage that the generator reads together.
        prior_temperature: Scores are divided by it before p(d | x) = softmax(scores).
        support_thresholds: Below this support an answer is withheld, by language of the question
            (`zh`, `en`, `other`); a language that is not there withholds nothing.
        hybrid_weights: Share of the dense half in a hybrid score, by language of the question
            (`zh`, `en`, `other`).
        confidence: Weights of what the confidence in an answer is made of, see
            `consilience.model.confidence`; nothing for the support alone.
    """

    vocabulary_size: int
    hidden_size: int = 384
    heads: int = 12
    intermediate_size: int = 1536
    positions: int = 512
    encoder_layers: int = 6
    decoder_layers: int = 3
    passage_tokens: int = 256
    reader_tokens: int = 384
    prior_temperature: float = 0.25
    support_thresholds: Mapping[str, float] = field(default_factory=dict)
    hybrid_weights: Mapping[str, float] = field(default_factory=dict)
    confidence: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A checked model folder.

    Attributes:
        path: Where it lies.
        config: What `config.json` says.
        digests: sha256 of each file, from the manifest.
        storage: How the weights lie in the file.
    """

    path: Path
    config: ModelConfig
    digests: Mapping[str, str]
    storage: Storage = "plain"

    def tensors(self) -> "dict[str, Tensor]":
        """All weights: as they are stored, or in bfloat16 where that is eight bits.

        Raises:
            DamagedError: Eight-bit matrices are not whole.
        """
        from safetensors.torch import load_file

        stored = load_file(self.path / "model.safetensors")
        if self.storage == "plain":
            return stored
        from consilience.encoding.packing import opened

        return opened(stored)


def shipped_folder() -> Path:
    """Where the model that comes with the package lies."""
    return Path(__file__).parent.parent / "weights" / SHIPPED


def which_folder(path: Path | None = None) -> tuple[Path, str]:
    """A folder, None for the one that ships, and what its manifest says; empty if it has none.

    Both together name a model: another that is saved to the same place has other digests.
    """
    path = (path or shipped_folder()).resolve()
    manifest = path / "manifest.json"
    return path, manifest.read_text("utf-8", "replace") if manifest.is_file() else ""


def open_folder(path: Path | None = None) -> ModelFolder:
    """Check a model folder against its manifest and read its settings.

    Args:
        path: The folder; None for the model that ships.

    Raises:
        MissingError: There is no such folder, or it holds no manifest.
        DamagedError: A file is missing or differs from its digest, or a setting is unknown.
        VersionError: A newer version wrote the folder.
    """
    path = path or shipped_folder()
    if not (path / "manifest.json").is_file():
        raise MissingError(
            f"no model in {path}: it holds no manifest.json",
            hint="name a folder that `Rag.save` wrote, or leave out --model for the shipped one",
        )
    manifest = _read_json(path / "manifest.json")
    if manifest.get("format", 0) > FORMAT:
        raise VersionError(
            f"the model in {path} has format {manifest['format']}; this version reads {FORMAT}",
            hint="pip install --upgrade consilience",
        )
    storage = _storage(manifest, path)
    digests = {name: str(manifest.get("files", {}).get(name, "")) for name in FILES}
    for name, digest in digests.items():
        _check(path / name, digest)
    return ModelFolder(path, _config(path / "config.json"), digests, storage)


def _storage(manifest: Mapping[str, Any], path: Path) -> Storage:
    """How the weights lie in the file; format 1 knew one way and did not say."""
    told = manifest.get("storage", "plain")
    for storage, least in FORMATS.items():
        if told == storage and manifest.get("format", 0) >= least:
            return storage
    raise DamagedError(
        f"the manifest of {path} has format {manifest.get('format')!r} and storage {told!r}, "
        "which do not go together",
        hint="copy the model folder again from where it came",
    )


def write_folder(
    path: Path,
    config: ModelConfig,
    tensors: "Mapping[str, Tensor]",
    tokenizer: str,
    *,
    storage: Storage = "plain",
) -> None:
    """Write a model folder; the manifest comes last, so a torn folder is never taken for a whole.

    Args:
        path: The folder, made if it is not there.
        config: Sizes and settings.
        tensors: Weights by name, on any device.
        tokenizer: The text of `tokenizer.json`.
        storage: `int8` rounds matrices to eight bits; it cannot be taken back.
    """
    from safetensors.torch import save_file

    tensors = {name: value.cpu() for name, value in tensors.items()}
    if storage == "int8":
        from consilience.encoding.packing import packed

        tensors = packed(tensors)
    path.mkdir(parents=True, exist_ok=True)
    (path / "manifest.json").unlink(missing_ok=True)
    settings = json.dumps(asdict(config), indent=2, ensure_ascii=False)
    (path / "config.json").write_text(settings + "\n", encoding="utf-8")
    (path / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    save_file(tensors, path / "model.safetensors")
    _write_manifest(path, storage)


def _write_manifest(path: Path, storage: Storage) -> None:
    digests = {name: digest_of(path / name) for name in FILES}
    manifest = {"format": FORMATS[storage], "storage": storage, "files": digests}
    part = path / "manifest.json.part"
    part.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    part.replace(path / "manifest.json")


def digest_of(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(path: Path, digest: str) -> None:
    hint = "install the package again, or copy the model folder again from where it came"
    if not path.is_file():
        raise DamagedError(f"the model file {path} is missing", hint=hint)
    found = digest_of(path)
    if found != digest:
        raise DamagedError(
            f"the model file {path} has sha256 {found[:12]}…, its manifest says {digest[:12]}…",
            hint=hint,
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedError(f"{path} is not JSON: {error}", hint="copy the model again") from error
    if not isinstance(found, dict):
        raise DamagedError(f"{path} is not a JSON object", hint="copy the model again")
    return found


def _config(path: Path) -> ModelConfig:
    settings = _read_json(path)
    unknown = sorted(settings.keys() - {each.name for each in fields(ModelConfig)})
    if unknown:
        raise DamagedError(
            f"{path} has unknown settings: {', '.join(unknown)}",
            hint="the folder may come from a newer version: pip install --upgrade consilience",
        )
    return ModelConfig(**settings)
