import json
from pathlib import Path

import numpy as np
import pytest

from consilience.encoding import load_encoder
from consilience.encoding.compact import like_lengths
from consilience.encoding.folder import Storage, open_folder, write_folder
from consilience.errors import DamagedError, MissingError, VersionError
from consilience.model import Rag
from tests.tiny import tiny_config, tiny_tensors, tiny_tokenizer, write_tiny_model


def write_stored(path: Path, storage: Storage) -> Path:
    words = tiny_tokenizer()
    config = tiny_config(words)
    write_folder(path, config, tiny_tensors(config), words.to_json(), storage=storage)
    return path


@pytest.fixture(params=["plain", "int8"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder of either storage."""
    return write_stored(tmp_path / "model", request.param)


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
    assert load_encoder(folder).token_vectors([], side="passages") == []


def test_text_past_the_window_is_not_read(folder: Path) -> None:
    encoder = load_encoder(folder)
    window = encoder.config.passage_tokens
    told = " ".join(["fee"] * (window - 2))  # what begins and ends a text takes two places
    longer = f"{told} bank card"
    whole, cut = encoder.encode_passages([told, longer])
    np.testing.assert_allclose(cut, whole, atol=1e-4)
    (tokens,) = encoder.token_vectors([longer], side="passages")
    assert len(tokens.words) == len(tokens.vectors) == window


def test_an_empty_text_has_a_vector(folder: Path) -> None:
    assert np.isfinite(load_encoder(folder).encode_passages([""])).all()


def test_the_fingerprint_names_the_weights(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model")
    same = write_tiny_model(tmp_path / "same")
    other = write_tiny_model(tmp_path / "other", seed=3)
    assert load_encoder(folder).fingerprint == load_encoder(same).fingerprint
    assert load_encoder(folder).fingerprint != load_encoder(other).fingerprint


def test_another_model_at_the_same_place_is_another(tmp_path: Path) -> None:
    before = load_encoder(write_tiny_model(tmp_path / "model"))
    assert load_encoder(tmp_path / "model") is before
    assert load_encoder(write_tiny_model(tmp_path / "model", seed=3)) is not before
    other = load_encoder(tmp_path / "model")
    assert other.fingerprint == load_encoder(write_tiny_model(tmp_path / "b", seed=3)).fingerprint


def test_the_shipped_model_may_be_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for seed in (0, 3):
        folder = write_tiny_model(tmp_path / str(seed), seed=seed)
        monkeypatch.setattr("consilience.encoding.folder.shipped_folder", lambda at=folder: at)
        found.append(load_encoder().fingerprint)
    assert found == [load_encoder(tmp_path / str(seed)).fingerprint for seed in (0, 3)]


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
    with pytest.raises(VersionError, match="has format 99; this version reads 2"):
        open_folder(folder)


def test_a_folder_of_the_first_format_has_no_word_of_storage(tmp_path: Path) -> None:
    folder = write_stored(tmp_path / "model", "plain")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["format"], manifest.pop("storage")) == (1, "plain")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert open_folder(folder).storage == "plain"
    assert Rag.load(folder).encoder is not None


def test_eight_bits_are_format_two_and_smaller(tmp_path: Path) -> None:
    plain, small = (write_stored(tmp_path / s, s) for s in ("plain", "int8"))
    assert json.loads((small / "manifest.json").read_text())["format"] == 2
    weights = "model.safetensors"
    assert (small / weights).stat().st_size < (plain / weights).stat().st_size
    whole, rounded = open_folder(plain).tensors(), open_folder(small).tensors()
    assert {k: (v.shape, v.dtype) for k, v in whole.items()} == {
        k: (v.shape, v.dtype) for k, v in rounded.items()
    }
    texts = ["the fee", "门诊时间是上午"]
    both = [load_encoder(place).encode_passages(texts) for place in (plain, small)]
    np.testing.assert_allclose(both[0], both[1], atol=2e-2)
    assert not np.array_equal(both[0], both[1])


def test_a_model_from_eight_bits_is_saved_as_it_is_in_memory(tmp_path: Path) -> None:
    small = write_stored(tmp_path / "int8", "int8")
    Rag.load(small).save(tmp_path / "saved")
    assert open_folder(tmp_path / "saved").storage == "plain"
    assert load_encoder(tmp_path / "saved").fingerprint == load_encoder(small).fingerprint


@pytest.mark.parametrize(
    "told", [{"format": 1, "storage": "int8"}, {"storage": "int4"}, {"format": 0}, {"storage": []}]
)
def test_a_storage_that_the_format_does_not_know_is_refused(
    tmp_path: Path, told: dict[str, object]
) -> None:
    folder = write_stored(tmp_path / "model", "int8")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | told))
    with pytest.raises(DamagedError, match=r"has format .* and storage .*, which do not go toget"):
        open_folder(folder)


def test_a_manifest_that_is_no_json_is_refused(folder: Path) -> None:
    (folder / "manifest.json").write_text("[1, 2")
    with pytest.raises(DamagedError, match=r"manifest\.json is not JSON"):
        open_folder(folder)


def test_batches_hold_everything_once_and_keep_their_budget() -> None:
    lengths = [3, 50, 7, 30, 20, 1, 30, 90, 30, 33]
    batches = list(like_lengths(lengths, 100))
    assert sorted(i for batch in batches for i in batch) == list(range(10))
    assert all(len(b) * max(lengths[i] for i in b) <= 100 for b in batches)
