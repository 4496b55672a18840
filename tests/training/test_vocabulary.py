from pathlib import Path
from typing import Any

import pytest
import torch

from consilience.encoding.folder import open_folder
from consilience.encoding.tokenizer import SubwordTokenizer
from consilience.errors import FingerprintError, MissingError, UsageError
from consilience.model import Rag
from consilience.store import Store
from consilience.training.run import train
from consilience.training.vocabulary import extend_vocabulary, new_words
from tests.tiny import tiny_tokenizer, write_tiny_model
from tests.training.small import config_of, write_world

ALL_PARTS = ["question_encoder", "passage_encoder", "generator", "temperature"]
REFRESHED = {"mode": "synchronous", "every": 4}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_world(tmp_path_factory.mktemp("world"))


def test_the_words_that_cost_most_come_first() -> None:
    texts = ["Stroke stroke ICU", "stroke icu oedema", "oedemas, the ward", "糖糖尿"]
    # stroke 3 x 5, oedema 1 x 5 stands only once, icu 2 x 2, 糖 has no pieces at all
    assert new_words(tiny_tokenizer(), texts, 9) == ["stroke", "icu", "糖"]
    assert new_words(tiny_tokenizer(), texts, 1) == ["stroke"]
    assert new_words(tiny_tokenizer(), [], 5) == []


def test_a_new_word_is_one_piece_and_begins_as_the_mean_of_its_pieces(tmp_path: Path) -> None:
    folder = open_folder(write_tiny_model(tmp_path / "model"))
    found = extend_vocabulary(folder, ["icu icu 糖 糖"], count=5, place=tmp_path / "larger")
    larger = open_folder(tmp_path / "larger")
    before = SubwordTokenizer.load(folder.path / "tokenizer.json")
    after = SubwordTokenizer.load(larger.path / "tokenizer.json")
    assert (found, len(after)) == (["icu", "糖"], len(before) + 2)
    (pieces,), (whole,) = before.encode(["icu"]), after.encode(["ICU"])
    assert (len(pieces.ids), whole.ids, whole.offsets) == (3, [len(before)], [(0, 3)])
    rows = folder.tensors()["embeddings.word_embeddings.weight"].float()
    own = larger.tensors()["embeddings.word_embeddings.weight"].float()
    assert torch.equal(own[: len(before)], rows)
    assert torch.allclose(own[len(before)], rows[pieces.ids].mean(0), atol=0.01)
    assert torch.allclose(own[-1], rows.mean(0), atol=0.01)
    assert after.encode(["the ward"])[0].ids == before.encode(["the ward"])[0].ids
    assert after.decode(after.encode(["the icu"])[0].ids) == "the icu"


def test_a_model_with_more_words_says_at_first_what_it_said(tmp_path: Path) -> None:
    folder = open_folder(write_tiny_model(tmp_path / "model"))
    extend_vocabulary(folder, ["icu icu"], count=5, place=tmp_path / "larger")
    before, after = Rag.load(folder.path), Rag.load(tmp_path / "larger")
    assert before.encoder is not None
    assert after.encoder is not None
    old, new = (one.encode_questions(["the fee is 3"]) for one in (before.encoder, after.encoder))
    assert (old == new).all()
    assert before.encoder.fingerprint != after.encoder.fingerprint


def run_with(world: dict[str, Path], output: Path, **values: Any) -> Any:
    settings = {"train": ALL_PARTS, "refresh": REFRESHED, "vocabulary": {"tokens": 3}}
    return config_of(world, output, **{**settings, **values})


def test_a_run_learns_the_new_words(world: dict[str, Path], tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("icu icu\nthe fee\n", "utf-8")
    said: list[str] = []
    settings = {"tokens": 3, "texts": [str(texts)]}
    config = run_with(world, tmp_path / "run", vocabulary=settings)
    done = train(config, say=said.append)
    assert "1 new words, among them icu" in said
    model = open_folder(done.output / "model")
    assert model.config.vocabulary_size == open_folder(world["model"]).config.vocabulary_size + 1
    with Store.open(tmp_path / "run/knowledge", create=False) as store:
        rag = Rag.load(done.output / "model")
        assert rag.encoder is not None
        assert store.fingerprint == rag.encoder.fingerprint


def test_words_come_from_the_store_and_the_questions(
    world: dict[str, Path], tmp_path: Path
) -> None:
    said: list[str] = []
    train(run_with(world, tmp_path / "run", steps=1), say=said.append)
    assert said[1] == "1 new words, among them bus"  # every other word is one piece already


def test_texts_without_a_new_word_leave_no_model_behind(
    world: dict[str, Path], tmp_path: Path
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("the fee the fee\n", "utf-8")
    with pytest.raises(UsageError, match="the texts hold none"):
        train(run_with(world, tmp_path / "run", vocabulary={"tokens": 3, "texts": [str(texts)]}))
    assert not (tmp_path / "run/start").exists()


def test_what_does_not_fit_is_refused(world: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="passage_encoder is not in train"):
        run_with(world, tmp_path / "a", train=["generator"], refresh={"mode": "never"})
    with pytest.raises(UsageError, match=r"vocabulary\.texts is given"):
        run_with(world, tmp_path / "a", vocabulary={"texts": ["a.txt"]})
    with pytest.raises(UsageError, match="a student must have its teacher's vocabulary"):
        run_with(world, tmp_path / "a", model=None, distil={"teacher": "shipped"})
    missing = {"tokens": 1, "texts": [str(tmp_path / "no.txt")]}
    with pytest.raises(MissingError, match="there is no file"):
        train(run_with(world, tmp_path / "b", vocabulary=missing))
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    latin = {"tokens": 1, "texts": [str(tmp_path / "latin.txt")]}
    with pytest.raises(UsageError, match="is not text in UTF-8"):
        train(run_with(world, tmp_path / "c", vocabulary=latin))


def test_a_store_of_another_encoder_is_refused_or_embedded_anew(
    world: dict[str, Path], tmp_path: Path
) -> None:
    other = write_tiny_model(tmp_path / "other", seed=8)
    with pytest.raises(FingerprintError):
        train(config_of(world, tmp_path / "a", model=str(other)))
    moving = {"train": ALL_PARTS, "refresh": REFRESHED}
    assert train(config_of(world, tmp_path / "b", model=str(other), **moving)).steps == 6
