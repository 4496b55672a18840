"""Text encoders of TensorFlow Hub as an `Encoder`, from a folder with a SavedModel.

Such a model takes a batch of texts and gives one vector each: the Universal Sentence Encoder, NNLM
and their like. A SavedModel is a program of TensorFlow's operations, so load only those that you
trust. Nothing is downloaded: the folder is what TensorFlow Hub unpacks.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from consilience.encoding import Vectors
from consilience.encoding.folder import digest_of
from consilience.errors import DependencyError, MissingError, UsageError

BATCH = 64
"""Texts given to the model at a time."""

_OUTPUTS = ("default", "outputs", "pooled_output", "sentence_embedding")


class SavedModelEncoder:
    """Implements `Encoder` with a SavedModel that takes texts; vectors are brought to length one.

    Args:
        folder: With `saved_model.pb`.
        output: Which of several outputs holds the vectors; None for the only one, or the one with a
            customary name.

    Raises:
        DependencyError: TensorFlow is not installed.
        MissingError: There is no SavedModel.
    """

    def __init__(self, folder: str | Path, *, output: str | None = None) -> None:
        self.folder, self._output = Path(folder), output
        if not (self.folder / "saved_model.pb").is_file():
            raise MissingError(
                f"no saved_model.pb in {str(folder)!r}",
                hint="unpack a text encoder of TensorFlow Hub there",
            )
        try:
            import tensorflow
        except ImportError as error:
            raise DependencyError(
                "SavedModels need the package tensorflow",
                hint="pip install 'consilience[tensorflow]'",
            ) from error
        self._tensorflow: Any = tensorflow
        self._model: Any = tensorflow.saved_model.load(str(self.folder))

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the graph, the variables and the chosen output."""
        digest = hashlib.sha256(f"{self._output}\0".encode())
        files = [self.folder / "saved_model.pb", *sorted((self.folder / "variables").glob("*"))]
        for file in [*files, *sorted((self.folder / "assets").glob("*"))]:
            digest.update(f"{file.name}\0{digest_of(file)}\0".encode())
        return digest.hexdigest()[:32]

    @cached_property
    def dimension(self) -> int:
        """The length of a vector."""
        return int(self._vectors(["a"]).shape[1])

    def encode_passages(self, passages: Sequence[str]) -> Vectors:
        """Vectors of passages, `[len(passages), dimension]`."""
        return self._encode(passages)

    def encode_questions(self, questions: Sequence[str]) -> Vectors:
        """Vectors of questions, `[len(questions), dimension]`."""
        return self._encode(questions)

    def _encode(self, texts: Sequence[str]) -> Vectors:
        parts = [self._vectors(texts[at : at + BATCH]) for at in range(0, len(texts), BATCH)]
        vectors = np.concatenate(parts) if parts else np.zeros((0, self.dimension), np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        found: Vectors = vectors / np.maximum(lengths, 1e-12)
        return found

    def _vectors(self, texts: Sequence[str]) -> Vectors:
        """What the model gives for texts, `[texts, dimension]`."""
        given = self._tensorflow.constant(list(texts))
        answer = self._called(given)
        chosen = self._chosen(answer) if isinstance(answer, Mapping) else answer
        found = np.asarray(chosen, dtype=np.float32)
        if found.ndim != 2 or len(found) != len(texts):
            raise UsageError(
                f"the model in {self.folder} gives shape {found.shape} for {len(texts)} texts",
                hint="a text encoder gives one vector for each text; name its output",
            )
        return found

    def _called(self, given: Any) -> Any:
        """The model itself where it can be called, else its serving signature."""
        if callable(self._model):
            return self._model(given)
        signature = self._model.signatures["serving_default"]
        (name,) = signature.structured_input_signature[1]
        return signature(**{name: given})

    def _chosen(self, answer: Mapping[str, Any]) -> Any:
        names = [self._output] if self._output else [n for n in _OUTPUTS if n in answer]
        if not names and len(answer) == 1:
            names = list(answer)
        if not names or names[0] not in answer:
            raise UsageError(
                f"the model in {self.folder} has the outputs {', '.join(sorted(answer))}",
                hint="SavedModelEncoder(folder, output=NAME)",
            )
        return answer[names[0]]
