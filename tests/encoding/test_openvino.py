"""OpenVINO's vectors against torch's, with random weights."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from consilience.encoding import load_encoder
from consilience.encoding.backends import on_backend
from consilience.errors import DependencyError, UsageError
from tests.encoding.test_workers import Counting

pytest.importorskip("openvino")
from consilience.encoding import openvino as openvino_module
from consilience.encoding.openvino import OpenVinoEncoder

TEXTS = ["What are the visit hours?", "门诊费用", "a", "", "the ward is of the bank " * 40]


def test_vectors_are_those_of_torch(tiny_model_folder: Path) -> None:
    torch_encoder = load_encoder(tiny_model_folder)
    encoder = on_backend(torch_encoder, "openvino")
    assert isinstance(encoder, OpenVinoEncoder)
    assert encoder.fingerprint == torch_encoder.fingerprint
    assert encoder.dimension == torch_encoder.dimension
    expected = torch_encoder.encode_passages(TEXTS)
    found = encoder.encode_passages(TEXTS)
    assert (found.dtype, found.shape) == (np.float32, expected.shape)
    assert (found * expected).sum(1).min() > 0.9999
    np.testing.assert_allclose(encoder.encode_questions(TEXTS[:1]), expected[:1], atol=2e-3)


def test_questions_with_layers_of_their_own_go_through_them(tiny_model_folder: Path) -> None:
    from copy import copy, deepcopy

    asymmetric = copy(load_encoder(tiny_model_folder))
    asymmetric.asking = deepcopy(asymmetric.layers)
    torch.nn.init.normal_(asymmetric.asking.layer[0].intermediate.dense.weight)
    encoder = OpenVinoEncoder(asymmetric)
    for side in ("encode_passages", "encode_questions"):
        expected, found = getattr(asymmetric, side)(TEXTS), getattr(encoder, side)(TEXTS)
        assert (found * expected).sum(1).min() > 0.9999
    apart = (encoder.encode_passages(TEXTS) * encoder.encode_questions(TEXTS)).sum(1)
    assert apart.max() < 0.9999


def test_layers_are_compiled_once_for_both_sides(
    tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[torch.nn.Module] = []
    compiled = openvino_module.compiled
    monkeypatch.setattr(
        openvino_module, "compiled", lambda tower: (made.append(tower), compiled(tower))[1]
    )
    encoder = OpenVinoEncoder(load_encoder(tiny_model_folder))
    assert made == []
    encoder.encode_passages(TEXTS)
    encoder.encode_questions(TEXTS)
    encoder.encode_passages(TEXTS)
    assert len(made) == 1


def test_encoders_of_transformers_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import BertConfig, BertModel

    from consilience.model.vectors import PooledEncoder

    config = BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
    )

    class Towers:
        fingerprint, dimension = "towers", 32

        def __init__(self) -> None:
            self.passages = PooledEncoder(BertModel(config).eval(), pooling="mean")
            self.questions = PooledEncoder(BertModel(config).eval(), pooling="first")

        def token_rows(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
            lengths = [len(text) + 2 for text in texts]
            ids = torch.randint(1, 50, (len(texts), max(lengths)), generator=torch.manual_seed(0))
            mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
            return ids * mask, mask

    towers = Towers()
    encoder = OpenVinoEncoder(towers)  # type: ignore[arg-type]
    ids, mask = towers.token_rows(["one", "and two"])
    for side in ("passages", "questions"):
        with torch.no_grad():
            expected = getattr(towers, side)(ids, mask).numpy()
        found = getattr(encoder, f"encode_{side}")(["one", "and two"])
        np.testing.assert_allclose(found, expected, rtol=2e-2, atol=2e-3)


def test_threads_share_an_encoder(tiny_model_folder: Path) -> None:
    encoder = OpenVinoEncoder(load_encoder(tiny_model_folder))
    expected = encoder.encode_passages(TEXTS)
    wrong: list[object] = []

    def encode() -> None:
        for _ in range(20):
            found = encoder.encode_passages(TEXTS)
            wrong.extend([] if np.allclose(found, expected, atol=1e-5) else [found])

    threads = [threading.Thread(target=encode) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_encoder_of_another_kind_is_refused() -> None:
    with pytest.raises(UsageError) as error:
        OpenVinoEncoder(Counting())
    assert error.value.message == "OpenVINO cannot take an encoder of the kind Counting"


def test_torch_changes_nothing_and_other_names_are_refused() -> None:
    encoder = Counting()
    assert on_backend(encoder, "torch") is encoder
    with pytest.raises(UsageError, match="there is no encoder backend 'onnx'") as error:
        on_backend(encoder, "onnx")  # type: ignore[arg-type]
    assert error.value.hint == "One of: torch, openvino."


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consilience.encoding.backends.find_spec", lambda name: None)
    with pytest.raises(DependencyError) as error:
        on_backend(Counting(), "openvino")
    assert error.value.hint == "pip install 'consilience[openvino]'"


def test_no_texts_no_vectors(tiny_model_folder: Path) -> None:
    encoder = OpenVinoEncoder(load_encoder(tiny_model_folder))
    assert encoder.encode_passages([]).shape == (0, encoder.dimension)
