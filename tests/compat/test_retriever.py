"""`RagRetriever` beside that of transformers, saved and loaded, and what is put right."""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pandas as pd
import pytest
import torch
from transformers import DPRContextEncoder, RagConfig

from consilience.compat.transformers import (
    DatasetIndex,
    PassageIndex,
    RagRetriever,
    RagTokenizer,
    StoreIndex,
    passage_embedder,
)
from consilience.documents import Passage
from consilience.errors import DamagedError, DependencyError, MissingError, UsageError
from consilience.store import Store
from tests.compat.theirs import their_retriever
from tests.compat.tiny_rag import PASSAGES, QUESTIONS, passages, rag_config, tokenizer
from tests.store.doubles import HashingEncoder


def ours(config: RagConfig, **given: Any) -> RagRetriever:
    given = given or {"passages": passages()}
    return RagRetriever(config, tokenizer("bert"), tokenizer("bart"), **given)


def asked(seed: int = 0) -> tuple[Any, np.ndarray]:
    """Ids of the questions and random vectors for them."""
    ids = tokenizer("bert")(QUESTIONS, padding=True)["input_ids"]
    return ids, np.random.default_rng(seed).standard_normal((2, 8)).astype(np.float32)


@pytest.mark.parametrize("n_docs", [1, 3, 4, 6])
@pytest.mark.parametrize("prefix", [None, "question:  "])
def test_rows_are_those_of_transformers(
    n_docs: int, prefix: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = rag_config(max_combined_length=12)
    ids, vectors = asked()
    how = {"prefix": prefix, "n_docs": n_docs, "return_tensors": "pt"}
    expected = their_retriever(config, monkeypatch)(ids, vectors, **how)
    found = ours(config)(ids, vectors, **how)
    assert found.keys() == expected.keys()
    for name in expected:
        assert torch.equal(found[name], expected[name]), name


def test_questions_are_searched_in_batches() -> None:
    config = rag_config(retrieval_batch_size=1)
    found: list[int] = []

    class Counted(PassageIndex):
        def get_top_docs(self, question_hidden_states: Any, n_docs: int = 5) -> Any:
            found.append(len(question_hidden_states))
            return super().get_top_docs(question_hidden_states, n_docs)

    ours(config, index=Counted.of(passages())).retrieve(asked()[1], 2)
    assert found == [1, 1]


class TestPutRight:
    def test_the_question_is_kept_and_the_passage_cut(self) -> None:
        ids, vectors = asked()
        long = [{"title": "ward", "text": "the ward opens at noon " * 9, "embeddings": [0.0] * 8}]
        cut, kept = (
            ours(rag_config(hf_compat=compat), passages=long)(ids, vectors, n_docs=1)
            for compat in (True, False)
        )
        texts = [
            tokenizer("bart").batch_decode(one["context_input_ids"], skip_special_tokens=True)
            for one in (cut, kept)
        ]
        assert not any(q in text for q, text in zip(QUESTIONS, texts[0], strict=True))
        assert all(text.endswith(f"// {q}") for q, text in zip(QUESTIONS, texts[1], strict=True))
        assert all(text.startswith("ward / the ward") for text in texts[1])
        for row in kept["context_input_ids"]:
            assert len(row) == 20
            assert (row[0], row[-1]) == (0, 2)

    def test_a_question_longer_than_the_row_loses_its_end(self) -> None:
        config = rag_config(hf_compat=False, max_combined_length=6)
        ids, vectors = asked()
        rows = ours(config)(ids, vectors, n_docs=1)["context_input_ids"]
        assert tokenizer("bart").decode(rows[1]) == "<s> // when was the </s>"

    def test_short_rows_are_padded_to_the_longest(self) -> None:
        ids, vectors = asked()
        rows = ours(rag_config(hf_compat=False, max_combined_length=300))(
            ids, vectors, return_tensors="pt"
        )
        assert rows["context_input_ids"].shape == rows["context_attention_mask"].shape
        assert rows["context_input_ids"].shape[1] < 40
        assert bool((rows["context_attention_mask"].sum(1) > 5).all())

    def test_no_more_passages_are_found_than_there_are(self) -> None:
        ids, vectors = asked()
        found = ours(rag_config(hf_compat=False))(ids, vectors, n_docs=9, return_tensors="pt")
        assert found["doc_ids"].shape == (2, 4)
        assert sorted(found["doc_ids"][0].tolist()) == [0, 1, 2, 3]
        assert found["context_input_ids"].shape[0] == 8
        kept = ours(rag_config())(ids, vectors, n_docs=9, return_tensors="pt")
        assert kept["doc_ids"][0].tolist().count(-1) == 5

    def test_what_is_not_there_has_no_text(self) -> None:
        class Ragged(PassageIndex):
            def get_top_docs(self, question_hidden_states: Any, n_docs: int = 5) -> Any:
                numbers, vectors = super().get_top_docs(question_hidden_states, n_docs)
                numbers[0, 1:] = -1
                return numbers, vectors

        _, numbers, docs = ours(rag_config(hf_compat=False), index=Ragged.of(passages())).retrieve(
            asked()[1], 3
        )
        assert numbers.shape == (2, 3)
        assert docs[0]["text"][1:] == ["", ""]
        assert all(docs[1]["text"])

    def test_an_index_without_passages_is_an_error(self) -> None:
        class Empty(PassageIndex):
            def get_top_docs(self, question_hidden_states: Any, n_docs: int = 5) -> Any:
                numbers, vectors = super().get_top_docs(question_hidden_states, n_docs)
                return np.full_like(numbers, -1), vectors

        retriever = ours(rag_config(hf_compat=False), index=Empty.of(passages()))
        with pytest.raises(MissingError, match="the index has no passage to retrieve"):
            retriever.retrieve(asked()[1], 3)


class TestSaving:
    def test_passages_are_saved_with_the_checkpoint(self, tmp_path: Path) -> None:
        before = ours(rag_config())
        before.save_pretrained(tmp_path)
        after = RagRetriever.from_pretrained(tmp_path)
        ids, vectors = asked()
        expected, found = (one(ids, vectors, return_tensors="pt") for one in (before, after))
        for name in expected:
            assert torch.equal(found[name], expected[name]), name
        assert str(tmp_path) not in (tmp_path / "config.json").read_text()

    def test_any_character_survives(self, tmp_path: Path) -> None:
        odd = [{"title": "a\u2028b", "text": 'c\x85d\n"e"\\ 费用', "embeddings": [0.5] * 8}]
        ours(rag_config(), passages=odd).save_pretrained(tmp_path)
        index: Any = RagRetriever.from_pretrained(tmp_path).index
        assert (index.titles, index.texts) == ([odd[0]["title"]], [odd[0]["text"]])

    def test_what_is_given_goes_before_what_was_saved(self, tmp_path: Path) -> None:
        ours(rag_config()).save_pretrained(tmp_path)
        found = RagRetriever.from_pretrained(tmp_path, passages=passages()[:2], n_docs=2)
        assert found.retrieve(asked()[1], 2)[1].max() <= 1
        assert found.n_docs == 2

    def test_the_passage_encoders_tokenizer_is_kept(self, tmp_path: Path) -> None:
        before = ours(rag_config())
        before.set_ctx_encoder_tokenizer(tokenizer("bert"))
        before.save_pretrained(tmp_path)
        after = RagRetriever.from_pretrained(tmp_path)
        assert after.return_tokenized_docs
        ids, vectors = asked()
        expected, found = (one(ids, vectors, return_tensors="pt") for one in (before, after))
        assert torch.equal(found["tokenized_doc_ids"], expected["tokenized_doc_ids"])
        assert found["tokenized_doc_ids"].shape[0] == 6

    def test_texts_and_vectors_that_do_not_match(self, tmp_path: Path) -> None:
        ours(rag_config()).save_pretrained(tmp_path)
        path = tmp_path / "passages" / "passages.jsonl"
        path.write_text(path.read_text() + '{"title": "", "text": ""}\n')
        with pytest.raises(DamagedError, match="has 5 passages and 4 vectors"):
            RagRetriever.from_pretrained(tmp_path)

    def test_vectors_that_are_missing(self, tmp_path: Path) -> None:
        ours(rag_config()).save_pretrained(tmp_path)
        (tmp_path / "passages" / "vectors.safetensors").unlink()
        with pytest.raises(MissingError, match=r"no vectors\.safetensors in"):
            RagRetriever.from_pretrained(tmp_path)

    def test_an_unknown_setting(self, tmp_path: Path) -> None:
        ours(rag_config()).save_pretrained(tmp_path)
        with pytest.raises(UsageError, match="unknown setting 'n_dogs'"):
            RagRetriever.from_pretrained(tmp_path, n_dogs=3)


@pytest.mark.parametrize("name", ["exact", "legacy", "compressed"])
def test_names_of_indexes_that_cannot_be_loaded_any_more(name: str) -> None:
    with pytest.raises(UsageError, match=f"index_name='{name}' stands for wiki_dpr") as raised:
        RagRetriever(rag_config(index_name=name), tokenizer("bert"), tokenizer("bart"))
    assert "passages=[" in raised.value.hint
    assert "indexed_dataset=" in raised.value.hint


class TestWherePassagesComeFrom:
    def found(self, **settings: Any) -> Any:
        config = rag_config(index_name="custom", **settings)
        return RagRetriever(config, tokenizer("bert"), tokenizer("bart")).index

    def lines(self, path: Path, *, vectors: bool) -> Path:
        rows = [one | {"embeddings": one["embeddings"].tolist()} for one in passages()]
        if not vectors:
            rows = PASSAGES
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    def test_a_table(self) -> None:
        found = PassageIndex.of(pd.DataFrame(passages()))
        assert found.titles == [one["title"] for one in PASSAGES]
        np.testing.assert_array_equal(found.vectors, PassageIndex.of(passages()).vectors)

    def test_lines_with_vectors(self, tmp_path: Path) -> None:
        path = self.lines(tmp_path / "p.jsonl", vectors=True)
        found = self.found(passages_path=str(path))
        np.testing.assert_array_equal(found.vectors, PassageIndex.of(passages()).vectors)

    def test_lines_with_an_index_of_faiss(self, tmp_path: Path) -> None:
        vectors = PassageIndex.of(passages()).vectors
        index = faiss.IndexHNSWFlat(8, 16, faiss.METRIC_INNER_PRODUCT)
        index.add(vectors)
        faiss.write_index(index, str(tmp_path / "index.faiss"))
        path = self.lines(tmp_path / "p.jsonl", vectors=False)
        settings = {"passages_path": str(path), "index_path": str(tmp_path / "index.faiss")}
        np.testing.assert_array_equal(self.found(**settings).vectors, vectors)
        (tmp_path / "index.faiss").write_bytes(b"no index")
        with pytest.raises(DamagedError, match="is no kind of index that is read here"):
            self.found(**settings)
        with pytest.raises(MissingError, match="no index at"):
            self.found(passages_path=str(path), index_path="nowhere")

    def test_an_index_of_other_passages(self, tmp_path: Path) -> None:
        index = faiss.IndexFlatIP(8)
        index.add(np.zeros((3, 8), np.float32))
        faiss.write_index(index, str(tmp_path / "index.faiss"))
        path = self.lines(tmp_path / "p.jsonl", vectors=False)
        with pytest.raises(DamagedError, match=r"has 4 passages, .* has 3 vectors"):
            self.found(passages_path=str(path), index_path=str(tmp_path / "index.faiss"))

    def test_a_folder_that_was_saved(self, tmp_path: Path) -> None:
        PassageIndex.of(passages()).save(tmp_path)
        assert self.found(passages_path=str(tmp_path)).titles[1] == "ward"

    def test_a_path_given_goes_before_what_was_saved(self, tmp_path: Path) -> None:
        ours(rag_config()).save_pretrained(tmp_path)
        PassageIndex.of(passages()[:1]).save(tmp_path / "other")
        found: Any = RagRetriever.from_pretrained(
            tmp_path, index_name="custom", passages_path=str(tmp_path / "other")
        ).index
        assert len(found.titles) == 1

    def test_nothing_is_there(self) -> None:
        with pytest.raises(MissingError, match="no passages at nowhere"):
            self.found(passages_path="nowhere")

    def test_a_line_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "p.jsonl").write_text('{"title": "a", "text": "b"}\n{"title": "a"}\n')
        with pytest.raises(DamagedError, match=r"p\.jsonl, line 2: no title or no text"):
            self.found(passages_path=str(tmp_path / "p.jsonl"))
        (tmp_path / "p.jsonl").write_text("{\n")
        with pytest.raises(DamagedError, match=r"p\.jsonl, line 1: not JSON"):
            self.found(passages_path=str(tmp_path / "p.jsonl"))

    def test_a_passage_without_a_vector(self) -> None:
        with pytest.raises(UsageError, match="passage 1 lacks embeddings"):
            PassageIndex.of([passages()[0], PASSAGES[1]])

    def test_vectors_of_two_sizes(self) -> None:
        short = passages()[1] | {"embeddings": [0.0]}
        with pytest.raises(UsageError, match=r"vectors of 2 sizes: \[1, 8\]"):
            PassageIndex.of([passages()[0], short])

    def test_vectors_of_another_encoder(self) -> None:
        with pytest.raises(UsageError, match="has size 5, those of the passages have 8"):
            ours(rag_config()).retrieve(np.zeros((1, 5), np.float32), 2)

    def test_a_dataset_on_disk_without_the_package(self, tmp_path: Path) -> None:
        if find_spec("datasets") is not None:
            pytest.skip("the package datasets is there")
        (tmp_path / "dataset_info.json").write_text("{}")
        with pytest.raises(DependencyError, match="the package datasets is not installed") as found:
            self.found(passages_path=str(tmp_path))
        assert found.value.hint == "pip install 'consilience[datasets]'"


class Dataset:
    """As much of a `datasets.Dataset` as the retriever of transformers asks for."""

    def __init__(self, indexed: bool = True) -> None:
        self.rows, self.indexed = passages(), indexed
        self.index = PassageIndex.of(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, numbers: list[int]) -> dict[str, list[Any]]:
        return {
            name: [self.rows[i][name] for i in numbers] for name in ("title", "text", "embeddings")
        }

    def list_indexes(self) -> list[str]:
        return ["embeddings"] if self.indexed else []

    def search_batch(self, name: str, queries: np.ndarray, k: int) -> tuple[Any, Any]:
        assert name == "embeddings"
        numbers = self.index.get_top_docs(queries, k)[0]
        return [], [[i for i in row if i >= 0] for row in numbers.tolist()]


class TestDatasets:
    @pytest.mark.parametrize("n_docs", [2, 6])
    def test_one_with_an_index(self, n_docs: int) -> None:
        ids, vectors = asked()
        expected = ours(rag_config())(ids, vectors, n_docs=n_docs, return_tensors="pt")
        found = ours(rag_config(), index=DatasetIndex(Dataset()))(
            ids, vectors, n_docs=n_docs, return_tensors="pt"
        )
        for name in expected:
            assert torch.equal(found[name], expected[name]), name

    def test_it_is_saved_with_the_checkpoint(self, tmp_path: Path) -> None:
        ours(rag_config()).save_pretrained(tmp_path)
        before = RagRetriever.from_pretrained(tmp_path, indexed_dataset=Dataset())
        before.save_pretrained(tmp_path / "again")
        after: Any = RagRetriever.from_pretrained(tmp_path / "again").index
        assert after.titles == PassageIndex.of(passages()).titles

    def test_one_without_an_index(self) -> None:
        with pytest.raises(UsageError, match="the Dataset has no index on its column") as raised:
            DatasetIndex(Dataset(indexed=False))
        assert raised.value.hint.startswith("dataset.add_faiss_index('embeddings')")


def passage(name: str, text: str, access: tuple[str, ...] = ()) -> Passage:
    """A document of one passage."""
    return Passage(name, text, name, f"{name}.txt", None, 0, len(text), access=access)


def letters(titles: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """How often each letter stands in a text, at length one."""
    counts = np.array([[text.count(chr(97 + i)) for i in range(26)] for text in texts], np.float32)
    return counts / np.linalg.norm(counts, axis=1, keepdims=True).clip(1e-6)


class TestStores:
    @pytest.fixture
    def store(self, tmp_path: Path) -> Any:
        with Store.open(tmp_path / "knowledge", encoder=HashingEncoder()) as store:
            store.add(*(passage(one["title"], one["text"]) for one in PASSAGES))
            yield store

    def retriever(self, store: Store, **how: Any) -> RagRetriever:
        reading = RagTokenizer(tokenizer("bert"), tokenizer("bart"))
        config = rag_config(hf_compat=False)
        if how:
            index = StoreIndex(store, letters, **how)
            return RagRetriever(config, reading.question_encoder, reading.generator, index)
        return RagRetriever.from_store(store, letters, config=config, tokenizer=reading)

    def titles(self, retriever: RagRetriever, text: str, n_docs: int = 9) -> list[str]:
        found: list[str] = retriever.retrieve(letters([""], [text]), n_docs)[2][0]["title"]
        return found

    def test_its_passages_are_found(self, store: Store) -> None:
        assert self.titles(self.retriever(store), "london is old", 1) == ["london"]

    def test_a_passage_encoder_of_transformers_embeds_them(self, store: Store) -> None:
        torch.manual_seed(0)
        encoder = DPRContextEncoder(rag_config().question_encoder).eval()
        embed = passage_embedder(encoder, tokenizer("bert"))
        titles, texts = ["ward", "river"], ["the ward opens at noon", "a river"]
        rows = tokenizer("bert")(titles, texts, padding=True, return_tensors="pt")
        expected = encoder(**rows).pooler_output.detach().numpy()
        np.testing.assert_allclose(embed(titles, texts), expected, atol=1e-6)
        reading = RagTokenizer(tokenizer("bert"), tokenizer("bart"))
        found = RagRetriever.from_store(store, embed, config=rag_config(), tokenizer=reading)
        assert found.retrieve(embed(["london"], ["london is old"]), 4)[0].shape == (1, 4, 8)

    def test_it_is_followed(self, store: Store) -> None:
        retriever = self.retriever(store)
        assert "ward" in self.titles(retriever, "ward")
        store.remove("ward.txt")
        store.add(passage("river", "a river in paris"))
        found = self.titles(retriever, "a river in paris")
        assert (found[0], sorted(found)) == ("river", ['"fee"', "london", "river", "tower"])

    def test_labels_are_honoured(self, store: Store) -> None:
        store.add(passage("card", "the bank card", access=("staff",)))
        assert "card" in self.titles(self.retriever(store), "card")
        assert "card" not in self.titles(self.retriever(store, access=()), "card")
        assert "card" in self.titles(self.retriever(store, access=("staff",)), "card")

    def test_an_empty_one(self, store: Store) -> None:
        store.remove(*(one.source for one in store.sources()))
        with pytest.raises(MissingError, match="has no passage to retrieve"):
            self.retriever(store).retrieve(letters([""], ["a"]), 2)

    def test_it_is_not_copied_into_a_checkpoint(self, store: Store, tmp_path: Path) -> None:
        self.retriever(store).save_pretrained(tmp_path / "saved")
        assert not (tmp_path / "saved" / "passages").exists()
        with pytest.raises(UsageError, match="the retriever has no passages"):
            RagRetriever.from_pretrained(tmp_path / "saved")


def test_a_retriever_without_tokenizers_can_retrieve_and_no_more() -> None:
    retriever = RagRetriever(rag_config(), passages=passages())
    ids, vectors = asked()
    assert retriever.retrieve(vectors, 2)[1].shape == (2, 2)
    with pytest.raises(UsageError, match="the retriever has no tokenizers"):
        retriever(ids, vectors)
