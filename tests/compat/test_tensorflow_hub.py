"""The adapter of SavedModels, over a double of the library's interface."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from consilience.compat.tensorflow_hub import SavedModelEncoder
from consilience.documents import Document
from consilience.errors import DependencyError, MissingError, UsageError
from consilience.retrieval import open_retriever
from consilience.store import Store


def counts(texts: Any) -> np.ndarray:
    """How often each of five letters stands in a text, `[texts, 5]`."""
    return np.array([[text.count(one) for one in "aeiou"] for text in texts], np.float64)


class Served:
    """A model that is not called itself."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self.signatures = {"serving_default": Signature(answer)}


class Signature:
    structured_input_signature = ((), {"text": None})

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self._answer = answer

    def __call__(self, *, text: Any) -> Any:
        return self._answer(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "encoder"
    (place / "variables").mkdir(parents=True)
    (place / "saved_model.pb").write_bytes(b"graph")
    (place / "variables" / "variables.index").write_bytes(b"index")
    return place


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    def put(model: Any) -> None:
        loading = SimpleNamespace(load=lambda path: model)
        double = SimpleNamespace(saved_model=loading, constant=lambda texts: texts)
        monkeypatch.setitem(sys.modules, "tensorflow", double)

    return put


@pytest.mark.parametrize(
    "model",
    [
        counts,
        lambda texts: {"default": counts(texts), "word_embeddings": None},
        lambda texts: {"embedding": counts(texts)},
        Served(lambda texts: {"outputs": counts(texts)}),
    ],
    ids=["tensor", "customary name", "only one", "signature"],
)
def test_texts_become_vectors_of_length_one(
    folder: Path, library: Callable[[Any], None], model: Any
) -> None:
    library(model)
    encoder = SavedModelEncoder(folder)
    texts = [f"a{'e' * (n % 7)}" for n in range(150)]
    found = encoder.encode_passages(texts)
    plain = counts(texts)
    expected = plain / np.linalg.norm(plain, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (found.dtype, encoder.dimension) == (np.float32, 5)
    assert encoder.encode_questions([]).shape == (0, 5)


def test_a_store_is_searched_with_it(
    folder: Path, library: Callable[[Any], None], tmp_path: Path
) -> None:
    library(counts)
    encoder = SavedModelEncoder(folder)
    with Store.open(tmp_path / "store", encoder=encoder) as store:
        store.add(Document("aaa", source="a"), Document("eee", source="e"))
        (best, *_) = open_retriever(store, mode="dense", encoder=encoder).search("ee", k=2)
    assert best.passage.source == "e"


def test_the_fingerprint_is_that_of_the_files(folder: Path, library: Callable[[Any], None]) -> None:
    library(counts)
    first = SavedModelEncoder(folder).fingerprint
    assert SavedModelEncoder(folder).fingerprint == first
    assert SavedModelEncoder(folder, output="default").fingerprint != first
    (folder / "variables" / "variables.index").write_bytes(b"other")
    assert SavedModelEncoder(folder).fingerprint != first


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda texts: {"one": 1, "two": 2}, "has the outputs one, two"),
        (lambda texts: np.zeros(3), r"gives shape \(3,\) for 1 texts"),
    ],
)
def test_what_gives_no_vectors_is_refused(
    folder: Path, library: Callable[[Any], None], model: Any, message: str
) -> None:
    library(model)
    with pytest.raises(UsageError, match=message):
        SavedModelEncoder(folder).encode_passages(["a"])


def test_without_the_library_or_the_folder_it_says_what_to_do(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MissingError, match=r"^no saved_model.pb in "):
        SavedModelEncoder(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(DependencyError) as error:
        SavedModelEncoder(folder)
    assert error.value.hint == "pip install 'consilience[tensorflow]'"
