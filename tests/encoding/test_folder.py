import json
from pathlib import Path

import numpy as np
import pytest

from consilience.encoding import load_encoder
from consilience.encoding.compact import like_lengths
from consilience.encoding.folder import open_folder
from consilience.errors import DamagedError, MissingError, VersionError
from tests.tiny import write_tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "model")


def test_vectors_have_length_one_and_do_not_depend_on_the_batch(folder: Path) -> None:
    encoder = load_encoder(folder)
    texts = ["the fee", "门诊时间是上午", "a", "the hours of the ward and the exam " * 9]
    together = encoder.encode_passages(texts)
    assert together.shape == (4, encoder.dimension)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)
    for index, text in enumerate(texts):
        # bfloat16 rounds sums of other lengths differently
        alone = encoder.encode_passages([text])[0]
        np.testing.assert_allclose(alone, together[index], atol=2e-2)


def test_no_texts_no_vectors(folder: Path) -> None:
    assert load_encoder(folder).encode_passages([]).shape == (0, 16)


def test_an_empty_text_has_a_vector(folder: Path) -> None:
    assert np.isfinite(load_encoder(folder).encode_passages([""])).all()


def test_the_fingerprint_names_the_weights(folder: Path, tmp_path: Path) -> None:
    same = write_tiny_model(tmp_path / "same")
    other = write_tiny_model(tmp_path / "other", seed=3)
    assert load_encoder(folder).fingerprint == load_encoder(same).fingerprint
    assert load_encoder(folder).fingerprint != load_encoder(other).fingerprint


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"no model in .*nowhere: it holds no manifest\.json"):
        open_folder(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_changed_byte_is_refused(folder: Path, name: str) -> None:
    raw = bytearray((folder / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / name).write_bytes(raw)
    with pytest.raises(DamagedError, match=f"{name} has sha256"):
        open_folder(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DamagedError, match=f"{name} is missing"):
        open_folder(folder)


def test_a_newer_format_is_refused(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(VersionError, match="has format 99; this version reads 1"):
        open_folder(folder)


def test_a_manifest_that_is_no_json_is_refused(folder: Path) -> None:
    (folder / "manifest.json").write_text("[1, 2")
    with pytest.raises(DamagedError, match=r"manifest\.json is not JSON"):
        open_folder(folder)


def test_batches_hold_everything_once_and_keep_their_budget() -> None:
    lengths = [3, 50, 7, 20, 1, 90, 33]
    batches = list(like_lengths(lengths, 100))
    assert sorted(i for batch in batches for i in batch) == list(range(7))
    assert all(len(b) * max(lengths[i] for i in b) <= 100 for b in batches)
