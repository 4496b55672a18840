"""Passages, vectors and encoders as people have them: DPR, wiki_dpr, faiss."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import processors
from transformers import DPRConfig, DPRContextEncoder, DPRQuestionEncoder

from consilience.compat import passage_tables
from consilience.compat.dpr import DprEncoder
from consilience.compat.faiss_files import FaissFile
from consilience.compat.passage_tables import add_table, read_blocks
from consilience.documents import Document
from consilience.errors import (
    DamagedError,
    FingerprintError,
    MissingError,
    UsageError,
)
from consilience.retrieval import open_retriever
from consilience.store import Store
from consilience.store.embedding import embedding_text
from tests.compat.tiny_rag import WORDS, tokenizer

faiss: Any = _faiss

ROWS = [
    ("fee", "the fee is nine"),
    ("ward", "the ward opens at noon"),
    ("tower", "the tower was built in 1889"),
    ("london", "london is old"),
    ("paris", "paris is tall"),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("dpr")
    words = tokenizer("bert")
    ids = [(one, words.convert_tokens_to_ids(one)) for one in ("[CLS]", "[SEP]")]
    words.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ids
    )
    config = DPRConfig(
        vocab_size=6 + len(WORDS),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
        initializer_range=0.5,
    )
    for seed, (name, kind) in enumerate(
        (("question", DPRQuestionEncoder), ("passage", DPRContextEncoder))
    ):
        torch.manual_seed(seed)
        kind(config).save_pretrained(place / name)
        words.save_pretrained(place / name)
    return place / "question", place / "passage"


@pytest.fixture(scope="module")
def encoder(folders: tuple[Path, Path]) -> DprEncoder:
    return DprEncoder.load(*folders)


@pytest.fixture
def store(tmp_path: Path, encoder: DprEncoder) -> Iterator[Store]:
    with Store.open(tmp_path / "store", encoder=encoder) as opened:
        yield opened


@pytest.fixture
def vectors(encoder: DprEncoder) -> np.ndarray:
    return encoder.encode_passages([embedding_text(*row) for row in ROWS])


class TestDpr:
    def test_a_passage_is_read_as_title_and_text(
        self, encoder: DprEncoder, folders: tuple[Path, Path]
    ) -> None:
        """As the ids that transformers' own script embeds Wikipedia with."""
        theirs = DPRContextEncoder.from_pretrained(folders[1]).eval()
        ids = encoder.tokenizer(["fee"], ["the fee is nine"], return_tensors="pt")["input_ids"]
        assert ids[0].tolist().count(encoder.tokenizer.sep_token_id) == 2
        with torch.no_grad():
            expected = theirs(ids).pooler_output
        found = encoder.encode_passages(["fee\nthe fee is nine"])
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)

    def test_a_question_is_read_alone_by_its_own_encoder(
        self, encoder: DprEncoder, folders: tuple[Path, Path]
    ) -> None:
        theirs = DPRQuestionEncoder.from_pretrained(folders[0]).eval()
        ids = encoder.tokenizer(["what is the fee"], return_tensors="pt")["input_ids"]
        with torch.no_grad():
            expected = theirs(ids).pooler_output
        found = encoder.encode_questions(["what is the fee"])
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)

    def test_a_long_text_is_cut_and_its_title_is_not(self, encoder: DprEncoder) -> None:
        text = "the fee is nine " * 20
        ids = encoder._pair(f"old tower\n{text}")
        assert len(ids) == 16
        words = encoder.tokenizer.convert_ids_to_tokens(ids)
        assert words[:4] == ["[CLS]", "old", "tower", "[SEP]"]
        assert words[-1] == "[SEP]"

    def test_what_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(MissingError, match=r"^no DPRQuestionEncoder in "):
            DprEncoder.load(tmp_path / "nowhere", tmp_path / "nowhere")


def parquet(folder: Path, vectors: np.ndarray | None) -> Path:
    path = folder / "wiki.parquet"
    pq.write_table(table(vectors), path, row_group_size=2)
    return path


def table(vectors: np.ndarray | None) -> pa.Table:
    columns: dict[str, Any] = {
        "id": [str(n) for n in range(len(ROWS))],
        "title": [title for title, _ in ROWS],
        "text": [text for _, text in ROWS],
    }
    if vectors is not None:
        columns["embeddings"] = pa.array(list(vectors.astype(np.float32)), pa.list_(pa.float32()))
    return pa.table(columns)


def shards(folder: Path, vectors: np.ndarray | None) -> Path:
    place = folder / "shards"
    place.mkdir()
    whole = table(vectors)
    pq.write_table(whole.slice(0, 3), place / "train-00000-of-00002.parquet")
    pq.write_table(whole.slice(3), place / "train-00001-of-00002.parquet")
    return place


def saved_dataset(folder: Path, vectors: np.ndarray | None) -> Path:
    """As `datasets.Dataset.save_to_disk` leaves it; the order is that of state.json."""
    place = folder / "dataset"
    place.mkdir()
    whole = table(vectors)
    for name, part in (("b.arrow", whole.slice(0, 3)), ("a.arrow", whole.slice(3))):
        with (
            pa.OSFile(str(place / name), "wb") as sink,
            pa.ipc.new_stream(sink, part.schema) as out,
        ):
            out.write_table(part)
    files = [{"filename": "b.arrow"}, {"filename": "a.arrow"}]
    (place / "state.json").write_text(json.dumps({"_data_files": files}))
    return place


def arrow(folder: Path, vectors: np.ndarray | None) -> Path:
    path, whole = folder / "wiki.arrow", table(vectors)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, whole.schema) as out:
        out.write_table(whole)
    return path


FORMS: list[Callable[[Path, np.ndarray | None], Path]] = [parquet, shards, saved_dataset, arrow]


class TestTables:
    @pytest.mark.parametrize("write", FORMS)
    def test_vectors_are_taken_as_they_are(
        self,
        write: Callable[[Path, np.ndarray], Path],
        store: Store,
        encoder: DprEncoder,
        vectors: np.ndarray,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        path = write(tmp_path, vectors + 0.01)
        monkeypatch.setattr(passage_tables, "BLOCK", 2)
        report = add_table(store, path, encoder=encoder)
        assert (report.passages, report.embedded, report.failed) == (5, 0, [])
        rows = store.vectors(range(1, 6))
        np.testing.assert_allclose(rows.vectors, vectors + 0.01, atol=5e-3)
        found = store.passages(range(1, 6))
        assert [(p.title, p.text) for p in found.values()] == ROWS

    def test_a_question_finds_them(
        self, store: Store, encoder: DprEncoder, vectors: np.ndarray, tmp_path: Path
    ) -> None:
        add_table(store, parquet(tmp_path, vectors), encoder=encoder)
        hits = open_retriever(store, mode="dense", encoder=encoder).search("the tower", k=5)
        asked = encoder.encode_questions(["the tower"])[0]
        order = np.argsort(-(vectors.astype(np.float16).astype(np.float32) @ asked))
        assert [hit.passage.title for hit in hits] == [ROWS[n][0] for n in order]

    def test_it_goes_on_where_it_was_interrupted(
        self, store: Store, encoder: DprEncoder, vectors: np.ndarray, tmp_path: Path
    ) -> None:
        path = parquet(tmp_path, vectors)
        for block in list(read_blocks(path, size=3))[:1]:
            passage_tables._add_block(store, path, block, encoder, None)
        report = passage_tables.AddReport()
        for block in read_blocks(path, size=3):
            one = passage_tables._add_block(store, path, block, encoder, None)
            report = passage_tables._collected(report, one)
        assert report.unchanged == ["wiki.parquet#0-2"]
        assert report.added == ["wiki.parquet#3-4"]
        assert len(store) == 5

    def test_the_table_of_dpr_gets_its_vectors_from_faiss(
        self, store: Store, encoder: DprEncoder, vectors: np.ndarray, tmp_path: Path
    ) -> None:
        path, index = tmp_path / "psgs.tsv", faiss.IndexFlatIP(8)
        lines = ["id\ttext\ttitle", *(f'{n}\t"{t}"\t{h}' for n, (h, t) in enumerate(ROWS, 1))]
        path.write_text("\n".join(lines) + "\n")
        index.add(vectors)
        faiss.write_index(index, str(tmp_path / "index.faiss"))
        report = add_table(store, path, encoder=encoder, index=tmp_path / "index.faiss")
        assert (report.passages, report.embedded) == (5, 0)
        assert store.passages([3])[3].text == "the tower was built in 1889"

    def test_without_vectors_they_are_made(
        self, store: Store, encoder: DprEncoder, vectors: np.ndarray, tmp_path: Path
    ) -> None:
        report = add_table(store, parquet(tmp_path, None), encoder=encoder)
        assert (report.passages, report.embedded) == (5, 5)
        np.testing.assert_allclose(store.vectors([1]).vectors[0], vectors[0], atol=5e-3)

    def test_vectors_of_another_encoder_are_refused(
        self, store: Store, encoder: DprEncoder, vectors: np.ndarray, tmp_path: Path
    ) -> None:
        strangers = np.random.default_rng(3).normal(size=vectors.shape).astype(np.float32)
        with pytest.raises(FingerprintError, match=r"of the first 5 vectors \d are nearest to"):
            add_table(store, parquet(tmp_path, strangers), encoder=encoder)
        with pytest.raises(
            FingerprintError, match=r"has vectors of 4 numbers, the encoder makes 8"
        ):
            add_table(store, parquet(tmp_path, vectors[:, :4]), encoder=encoder)
        assert len(store) == 0

    @pytest.mark.parametrize("count", [4, 6])
    def test_an_index_of_another_table_is_refused(
        self, store: Store, encoder: DprEncoder, vectors: np.ndarray, tmp_path: Path, count: int
    ) -> None:
        index = faiss.IndexFlatIP(8)
        index.add(np.resize(vectors, (count, 8)))
        faiss.write_index(index, str(tmp_path / "i"))
        with pytest.raises(DamagedError, match=rf"has {count} vectors$"):
            add_table(store, parquet(tmp_path, None), encoder=encoder, index=tmp_path / "i")

    @pytest.mark.parametrize(
        ("name", "content", "kind", "message"),
        [
            ("gone.parquet", None, MissingError, "no table at"),
            ("bad.parquet", b"PAR1 and no more", DamagedError, "cannot be read"),
            ("bad.arrow", b"nothing", DamagedError, "cannot be read"),
            ("bad.tsv", b"id\tname\n1\tx\n", DamagedError, "has the columns id, name"),
        ],
    )
    def test_what_is_no_table_is_refused(
        self,
        store: Store,
        encoder: DprEncoder,
        tmp_path: Path,
        name: str,
        content: bytes | None,
        kind: type[Exception],
        message: str,
    ) -> None:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(kind, match=message):
            add_table(store, tmp_path / name, encoder=encoder)

    def test_embeddings_of_several_sizes_are_refused(
        self, store: Store, encoder: DprEncoder, tmp_path: Path
    ) -> None:
        columns = {"title": ["a", "b"], "text": ["a", "b"], "embeddings": [[1.0, 2.0, 3.0], [4.0]]}
        pq.write_table(pa.table(columns), tmp_path / "odd.parquet")
        with pytest.raises(DamagedError, match=r"has embeddings that are missing or of several"):
            add_table(store, tmp_path / "odd.parquet", encoder=encoder)

    def test_a_folder_without_a_table_is_refused(
        self, store: Store, encoder: DprEncoder, tmp_path: Path
    ) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(MissingError, match=r"^no table in the folder "):
            add_table(store, tmp_path / "empty", encoder=encoder)
        (tmp_path / "empty" / "state.json").write_text("{}")
        with pytest.raises(DamagedError, match=r"names no data files$"):
            add_table(store, tmp_path / "empty", encoder=encoder)


class TestGivenVectors:
    @pytest.mark.parametrize(
        "vectors",
        [
            np.ones((1, 8)),
            np.ones((2, 4)),
            np.full((2, 8), np.nan),
            np.full((2, 8), 1e6),
            np.ones(2),
        ],
    )
    def test_what_does_not_fit_is_refused(
        self, store: Store, encoder: DprEncoder, vectors: np.ndarray
    ) -> None:
        store.add(Document("the fee", source="fee"))
        with pytest.raises(UsageError, match=r"or values that are not finite, for 2 texts"):
            store.give_vectors(["a", "b"], vectors, fingerprint=encoder.fingerprint)

    def test_those_of_another_encoder_are_refused(self, store: Store) -> None:
        store.add(Document("the fee", source="fee"))
        with pytest.raises(FingerprintError, match=r"received encoder other$"):
            store.give_vectors(["a"], np.ones((1, 8), np.float32), fingerprint="other")


def indexes() -> dict[str, Any]:
    flat = faiss.IndexFlatIP(8)
    return {
        "flat": faiss.IndexFlatIP(8),
        "hnsw": faiss.IndexHNSWFlat(8, 4),
        "inverted": faiss.IndexIVFFlat(flat, 8, 2),
    }


class TestFaissFiles:
    @pytest.mark.parametrize("kind", ["flat", "hnsw", "inverted"])
    def test_vectors_come_back_in_order(self, kind: str, tmp_path: Path) -> None:
        vectors = np.random.default_rng(0).normal(size=(90, 8)).astype(np.float32)
        index = indexes()[kind]
        index.train(vectors)
        index.add(vectors)
        faiss.write_index(index, str(tmp_path / "index"))
        file = FaissFile(tmp_path / "index")
        assert (len(file), file.dimension) == (90, 8)
        np.testing.assert_allclose(file.rows(3, 60), vectors[3:60], atol=1e-6)

    def test_a_file_of_something_else_is_refused_before_it_is_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(faiss, "read_index", lambda *_: pytest.fail("it was read"))
        path = tmp_path / "model.pkl"
        path.write_bytes(b"\x80\x04\x95\x00")
        with pytest.raises(DamagedError) as error:
            FaissFile(path)
        assert r"begins with b'\x80\x04\x95\x00', which is no kind of index" in str(error.value)
        assert "flat, inner product" in error.value.hint

    def test_a_file_that_is_cut_is_refused(self, tmp_path: Path) -> None:
        index = faiss.IndexFlatIP(8)
        index.add(np.ones((9, 8), np.float32))
        faiss.write_index(index, str(tmp_path / "whole"))
        (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:80])
        with pytest.raises(DamagedError, match=r"is no index that faiss can take vectors from$"):
            FaissFile(tmp_path / "cut").rows(0, 9)

    def test_one_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(MissingError, match=r"^no index at "):
            FaissFile(tmp_path / "nowhere")


def test_a_copy_of_the_report_adds_up() -> None:
    one = replace(passage_tables.AddReport(), passages=2, embedded=1, generation=5)
    total = passage_tables._collected(replace(one, generation=4), one)
    assert (total.passages, total.embedded, total.generation) == (4, 2, 5)
