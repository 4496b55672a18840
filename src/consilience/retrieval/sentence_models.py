"""Trained rerankers of sentence-transformers: cross-encoders and encoders of many vectors.

A model is a folder. Its JSON files name classes, which that package would import; here every such
name is looked up in a closed table first, and weights must be safetensors, so that nothing in a
folder can run. A model of the hub is fetched as a folder and treated alike.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np

from consilience.documents import Passage
from consilience.errors import DamagedError, DependencyError, MissingError, UsageError
from consilience.retrieval.reranking import Scores
from consilience.store.embedding import embedding_text

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_HUB_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
_CLASS_KEYS = frozenset({"type", "activation_fn", "activation_function"})
_CLASSES = re.compile(
    r"sentence_transformers(\.\w+)*\."
    r"(Transformer|MultiVectorMask|Dense|Normalize|Pooling|LogitScore|LayerNorm|Dropout)"
    r"|torch\.nn(\.modules\.\w+)?\.(Identity|Sigmoid|Tanh|ReLU|GELU|Softmax)"
    r"|pylate\.models\.Dense(\.Dense)?"
)
"""Classes that the files of a model may name."""


class CrossEncoded:
    """A cross-encoder: question and passage are read together and get one score.

    Source: Nogueira and Cho, 2019, "Passage Re-ranking with BERT".

    Args:
        model: A `sentence_transformers.CrossEncoder` with one output.
    """

    def __init__(self, model: Any) -> None:
        self._model = model.eval()

    @classmethod
    def load(cls, name: str) -> Self:
        """Load a folder or a model of the hub. Raises as `reranking.open_reranker`."""
        package, folder = _package(), checked_folder(name)
        with _readable(folder):
            model = package.CrossEncoder(str(folder), **_OFFLINE)
        if model.config.num_labels != 1:
            raise UsageError(
                f"the model in {folder} has {model.config.num_labels} outputs, not one score",
                hint="take a cross-encoder that was trained to rank",
            )
        return cls(model)

    def score(self, question: str, passages: Sequence[Passage]) -> Scores:
        """The model's output before any squashing, `[passages]`."""
        from torch import nn

        pairs = [(question, embedding_text(one.title, one.text)) for one in passages]
        if not pairs:
            return np.zeros(0, np.float32)
        found: Scores = self._model.predict(
            pairs, activation_fn=nn.Identity(), show_progress_bar=False
        )
        return found


class MultiVectored:
    """Late interaction with an encoder that was trained for it (ColBERT and its like).

    Args:
        model: A `sentence_transformers.MultiVectorEncoder`.
    """

    def __init__(self, model: Any) -> None:
        self._model = model.eval()

    @classmethod
    def load(cls, name: str) -> Self:
        """Load a folder or a model of the hub. Raises as `reranking.open_reranker`."""
        package, folder = _package(), checked_folder(name)
        with _readable(folder):
            return cls(package.MultiVectorEncoder(str(folder), **_OFFLINE))

    def score(self, question: str, passages: Sequence[Passage]) -> Scores:
        """The sum over the question's tokens of the largest likeness, `[passages]`."""
        texts = [embedding_text(one.title, one.text) for one in passages]
        if not texts:
            return np.zeros(0, np.float32)
        asked = self._model.encode_query([question], show_progress_bar=False)
        told = self._model.encode_document(texts, show_progress_bar=False)
        found: Scores = self._model.similarity(asked, told)[0].float().cpu().numpy()
        return found


_OFFLINE: dict[str, Any] = {
    "trust_remote_code": False,
    "local_files_only": True,
    "model_kwargs": {"use_safetensors": True},
}


def checked_folder(name: str) -> Path:
    """The folder of a model, none of whose files can run anything.

    Args:
        name: A folder, or a model of the hub, which is fetched.

    Raises:
        MissingError: There is no such model.
        DamagedError: A file names a class that is not in the closed table, or weights are not
            safetensors.
    """
    folder = Path(name)
    if not folder.is_dir():
        folder = _downloaded(name)
    if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
        raise MissingError(f"no model in {folder}: it holds no config.json", hint=_NAMES)
    for file in sorted(folder.rglob("*.json")):
        for named in _classes_in(_json(file)):
            if not _CLASSES.fullmatch(named):
                raise DamagedError(
                    f"{file} names the class {named!r}, which is none of this package's",
                    hint="take a model that runs no code of its own",
                )
    if not any(folder.rglob("*.safetensors")):
        raise DamagedError(
            f"the weights in {folder} are not safetensors", hint="save the model again with them"
        )
    return folder


_NAMES = "name a folder that sentence-transformers wrote, or a model of the hub"


def _classes_in(found: Any) -> Iterator[str]:
    """Every dotted name under a key that names a class, however deep."""
    if isinstance(found, dict):
        for key, value in found.items():
            if key in _CLASS_KEYS and isinstance(value, str) and "." in value:
                yield value
            else:
                yield from _classes_in(value)
    elif isinstance(found, list):
        for value in found:
            yield from _classes_in(value)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedError(f"{path} is not JSON: {error}", hint=_COPY) from error


_COPY = "copy the model again from where it came"


def _downloaded(name: str) -> Path:
    if not _HUB_ID.fullmatch(name):
        raise MissingError(f"there is no model folder {name!r}", hint=_NAMES)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(_HUB_FILES)))
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise MissingError(
            f"the model {name!r} is not on this machine and the hub did not give it: "
            f"{str(error).strip().splitlines()[0]}",
            hint=f"check the name and the connection, or fetch it elsewhere with `hf download "
            f"{name}` and name the folder",
        ) from error


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """What that package raises for a folder that it cannot read, as our error."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DamagedError(f"the model in {folder} cannot be read: {reason}", hint=_COPY) from error


def _package() -> Any:
    try:
        import sentence_transformers
    except ImportError as error:
        raise DependencyError(
            "rerankers that are trained need the package sentence-transformers",
            hint="pip install 'consilience[rerank]'",
        ) from error
    return sentence_transformers
