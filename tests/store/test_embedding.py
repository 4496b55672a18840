"""Vectors by what they were made from: text and encoder, and nothing else."""

import numpy as np

from consilience.documents import Document
from consilience.store import Store, writing
from consilience.store.embedding import content_of, embed, embedding_text, known_vectors
from tests.store.doubles import HashingEncoder


def test_the_title_stands_before_the_passage() -> None:
    assert embedding_text("渡轮", "九点开。") == "渡轮\n九点开。"
    assert embedding_text("", "九点开。") == "九点开。"


def test_content_is_the_text_and_nothing_else() -> None:
    assert content_of("a") == content_of("a") != content_of("b")
    assert len(content_of("渡轮")) == 16


def test_vectors_are_kept_as_fp16(encoder: HashingEncoder) -> None:
    one, two = embed(encoder, ["first", "second"])
    expected = encoder.encode_passages(["first", "second"]).astype(np.float16)
    np.testing.assert_array_equal(np.frombuffer(one, dtype="<f2"), expected[0])
    np.testing.assert_array_equal(np.frombuffer(two, dtype="<f2"), expected[1])


def test_known_are_committed_and_staged_vectors_of_the_same_encoder_only(
    store: Store, encoder: HashingEncoder
) -> None:
    store.add(Document(text="committed", source="a"))
    committed, staged, unknown = map(content_of, ("committed", "staged", "unknown"))
    writing.stage(store._database, {staged: b"own"}, fingerprint=encoder.fingerprint)
    writing.stage(store._database, {staged: b"new", unknown: b"new"}, fingerprint="other")

    def known(fingerprint: str) -> set[bytes]:
        asked = [committed, staged]
        return set(known_vectors(store._database, asked, fingerprint=fingerprint).values())

    assert known(encoder.fingerprint) == {*embed(encoder, ["committed"]), b"own"}
    assert known("other") == {b"new"}
    assert known("") == set()
    assert known_vectors(store._database, [], fingerprint="other") == {}
