import shutil
from pathlib import Path

import pytest

from consilience.errors import FingerprintError
from consilience.retrieval import open_retriever
from consilience.retrieval.dense import DenseRanker
from consilience.store import Store
from tests.retrieval.corpus import fill
from tests.retrieval.encoders import TrigramEncoder

ASK = "When are the visiting hours?"


def test_an_encoder_of_other_vectors_is_refused(store: Store) -> None:
    fill(store, "visits")
    with pytest.raises(FingerprintError) as error:
        open_retriever(store, mode="dense", encoder=TrigramEncoder("another-0002"))
    assert error.value.message == (
        f"the vectors of the store at {store.path} are from encoder trigrams-0001, "
        "received encoder another-0002"
    )
    assert error.value.hint == f"consilience add --re-embed --store {store.path}"


def test_a_store_that_is_re_embedded_is_refused_from_then_on(store: Store) -> None:
    fill(store)
    retriever = open_retriever(store, mode="dense", encoder=TrigramEncoder())
    assert retriever.search(ASK, k=1)
    with Store.open(store.path) as other:
        other.re_embed(TrigramEncoder("another-0002", dimension=32))
    with pytest.raises(FingerprintError):
        retriever.search(ASK, k=1)
    renewed = open_retriever(
        store, mode="dense", encoder=TrigramEncoder("another-0002", dimension=32)
    )
    assert renewed.search(ASK, k=1)[0].passage.source == "visits"


def test_an_empty_store_asks_no_encoder(store: Store) -> None:
    encoder = TrigramEncoder()
    assert open_retriever(store, mode="dense", encoder=encoder).search(ASK, k=1) == []
    assert encoder.questions == []


def test_nothing_is_written_beside_the_store(store: Store) -> None:
    fill(store)
    open_retriever(store, mode="dense", encoder=TrigramEncoder()).search(ASK, k=1)
    assert list((store.path / "derived").iterdir()) == []


def test_a_store_that_was_put_back_is_followed_back(store: Store, tmp_path: Path) -> None:
    fill(store, "visits")
    shutil.copytree(store.path, tmp_path / "backup")
    fill(store, "loans")
    ranker = DenseRanker(store, TrigramEncoder())
    assert len(ranker.rank(ASK, depth=5)) == 2
    with Store.open(tmp_path / "backup") as backup:
        ranker._store = backup
        assert [number for number, _ in ranker.rank(ASK, depth=5)] == [1]
