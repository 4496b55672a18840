"""Trained rerankers, over tiny models with random weights that the test writes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from consilience.documents import Passage
from consilience.errors import DamagedError, MissingError, UsageError
from consilience.retrieval.reranking import open_reranker
from consilience.store.embedding import embedding_text
from tests.retrieval.sentence_models import write_cross_encoder, write_multi_vector

PASSAGES = [
    Passage("1", "the ward is open", "hours", "a", None, 0, 16),
    Passage("2", "a card and a fee", "", "b", None, 0, 16),
    Passage("3", "the bank", "", "c", None, 0, 8),
]
QUESTION = "what is the fee"


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cross_encoder(tmp_path_factory.mktemp("cross"))


@pytest.fixture(scope="module")
def multi_vector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_multi_vector(tmp_path_factory.mktemp("multi"))


def test_a_cross_encoder_scores_question_and_passage_together(cross_encoder: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    found = open_reranker(f"cross-encoder:{cross_encoder}").score(QUESTION, PASSAGES)
    model = AutoModelForSequenceClassification.from_pretrained(cross_encoder)
    tokenizer = AutoTokenizer.from_pretrained(cross_encoder)
    expected = []
    for one in PASSAGES:
        row = tokenizer(QUESTION, embedding_text(one.title, one.text), return_tensors="pt")
        with torch.no_grad():
            expected.append(float(model(**row).logits[0, 0]))
    assert found.shape == (3,)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_many_vectors_are_compared_by_their_best_likeness(multi_vector: Path) -> None:
    from sentence_transformers import MultiVectorEncoder

    found = open_reranker(f"multi-vector:{multi_vector}").score(QUESTION, PASSAGES)
    model = MultiVectorEncoder(str(multi_vector))
    asked = model.encode_query([QUESTION], convert_to_numpy=True)[0]
    texts = [embedding_text(one.title, one.text) for one in PASSAGES]
    told = model.encode_document(texts, convert_to_numpy=True)
    expected = [float((asked @ one.T).max(1).sum()) for one in told]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["cross-encoder", "multi-vector"])
def test_no_passages_have_no_scores(kind: str, cross_encoder: Path, multi_vector: Path) -> None:
    folder = cross_encoder if kind == "cross-encoder" else multi_vector
    assert open_reranker(f"{kind}:{folder}").score(QUESTION, []).shape == (0,)


@pytest.mark.parametrize("name", ["nowhere", "no/such/folder", "../x"])
def test_a_model_that_is_not_there_is_missing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)  # nobody knows what lies beside the folder that tests are run in
    with pytest.raises(MissingError) as error:
        open_reranker(f"cross-encoder:{name}")
    assert error.value.message == f"there is no model folder {name!r}"


def test_a_hub_model_without_a_connection_is_missing() -> None:
    with pytest.raises(MissingError, match=r"^the model 'nobody/nothing' is not on this machine"):
        open_reranker("cross-encoder:nobody/nothing")


def test_an_empty_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"it holds no config.json$"):
        open_reranker(f"cross-encoder:{tmp_path}")


def copied(folder: Path, target: Path) -> Path:
    import shutil

    shutil.copytree(folder, target)
    return target


def test_a_class_from_elsewhere_is_never_imported(multi_vector: Path, tmp_path: Path) -> None:
    for wanted in (
        "evil.Module",
        "sentence_transformers.util.import_from_string",
        "sentence_transformers.models.Transformer.evil",
        "os.system",
    ):
        folder = copied(multi_vector, tmp_path / wanted)
        (folder / "evil.py").write_text("raise SystemExit('ran')")
        modules = json.loads((folder / "modules.json").read_text())
        modules[-1]["type"] = wanted
        (folder / "modules.json").write_text(json.dumps(modules))
        with pytest.raises(DamagedError) as error:
            open_reranker(f"multi-vector:{folder}")
        assert error.value.message == (
            f"{folder / 'modules.json'} names the class {wanted!r}, which is none of this package's"
        )


def test_an_activation_from_elsewhere_is_never_called(cross_encoder: Path, tmp_path: Path) -> None:
    folder = copied(cross_encoder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["sentence_transformers"] = {"activation_fn": "torch.hub.get_dir"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(DamagedError, match=r"names the class 'torch.hub.get_dir'"):
        open_reranker(f"cross-encoder:{folder}")


def test_pickled_weights_are_not_read(cross_encoder: Path, tmp_path: Path) -> None:
    folder = copied(cross_encoder, tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(DamagedError, match=r"are not safetensors$"):
        open_reranker(f"cross-encoder:{folder}")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_damaged_file_is_named(cross_encoder: Path, tmp_path: Path, name: str) -> None:
    folder = copied(cross_encoder, tmp_path / "model")
    (folder / name).write_bytes(b"{")
    with pytest.raises(DamagedError) as error:
        open_reranker(f"cross-encoder:{folder}")
    assert str(folder) in error.value.message
    assert error.value.hint == "copy the model again from where it came"


def test_a_classifier_of_several_classes_is_no_reranker(tmp_path: Path) -> None:
    folder = write_cross_encoder(tmp_path, outputs=3)
    with pytest.raises(UsageError) as error:
        open_reranker(f"cross-encoder:{folder}")
    assert error.value.message == f"the model in {folder} has 3 outputs, not one score"
