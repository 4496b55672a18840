import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from consilience.documents import Document, Passage
from consilience.encoding import Side, TokenVectors
from consilience.errors import DependencyError, UsageError
from consilience.retrieval import Refinement, Retriever, open_retriever, refined
from consilience.retrieval.late_interaction import MaxSim, late_interaction, question_vectors
from consilience.retrieval.reranking import Prior, Reranked, Scores, open_reranker, scores_of
from consilience.store import Store
from tests.retrieval.contract import ASK, RetrieverContract, sources
from tests.retrieval.corpus import TEXTS, fill
from tests.retrieval.encoders import TrigramEncoder
from tests.tiny import write_tiny_model


class TestReranked(RetrieverContract):
    def open(self, store: Store) -> Retriever:
        return Reranked(open_retriever(store, mode="bm25"), Prior(TrigramEncoder()), share=0.3)


class Liking:
    """Scores passages by whether their source is the one it likes; remembers how many it saw."""

    def __init__(self, liked: str) -> None:
        self.liked, self.seen = liked, [0]

    def score(self, question: str, passages: Sequence[Passage]) -> Scores:
        self.seen.append(len(passages))
        return np.array([one.source == self.liked for one in passages], np.float32)


QUESTION = "interest rate, visiting hours, annual leave"


def test_the_reranker_decides_among_the_candidates(store: Store) -> None:
    fill(store)
    plain = open_retriever(store, mode="bm25")
    found = sources(plain, QUESTION)
    assert len(found) == 3
    last = found[-1]
    assert sources(Reranked(plain, Liking(last), share=1.0), QUESTION) == [last, *found[:-1]]
    assert sources(Reranked(plain, Liking(last), share=0.0), QUESTION) == found
    assert sources(Reranked(plain, Liking(last), depth=2, share=1.0), QUESTION, k=2) == found[:2]


def test_it_looks_at_more_candidates_than_are_asked_for(store: Store) -> None:
    fill(store)
    liking = Liking("leave")
    plain = open_retriever(store, mode="bm25")
    Reranked(plain, liking, depth=3).search(QUESTION, k=1)
    assert liking.seen[-1] == 3
    Reranked(plain, liking, depth=1).search(QUESTION, k=2)
    assert liking.seen[-1] == 2


def test_a_hit_has_both_scores_on_one_scale(store: Store) -> None:
    fill(store)
    plain = open_retriever(store, mode="bm25")
    before = [hit.score for hit in plain.search(QUESTION, k=3)]
    scaled = [(score - before[-1]) / (before[0] - before[-1]) for score in before]
    hits = Reranked(plain, Liking("nobody"), share=0.25).search(QUESTION, k=3)
    assert [hit.score for hit in hits] == pytest.approx([0.75 * one + 0.25 for one in scaled])


@pytest.mark.parametrize(
    ("returned", "shape"), [([1.0], (1,)), ([[1.0, 2.0]], (1, 2)), ([1.0, float("nan")], (2,))]
)
def test_scores_that_break_the_protocol_are_refused(
    store: Store, returned: object, shape: tuple[int, ...]
) -> None:
    class Broken:
        def score(self, question: str, passages: Sequence[Passage]) -> Scores:
            return np.array(returned, np.float32)

    fill(store, "leave", "visits")
    passages = [hit.passage for hit in open_retriever(store, mode="bm25").search(QUESTION, k=2)]
    with pytest.raises(UsageError) as error:
        scores_of(Broken(), QUESTION, passages)
    assert error.value.message == (
        f"the reranker returned shape {shape} or scores that are not finite for 2 passages"
    )


@pytest.mark.parametrize(("depth", "share"), [(0, 0.5), (5, 1.1), (5, -0.1)])
def test_depth_and_share_have_bounds(store: Store, depth: int, share: float) -> None:
    with pytest.raises(UsageError, match=rf"received {depth} and {share}$"):
        Reranked(open_retriever(store, mode="bm25"), Liking("a"), depth=depth, share=share)


def test_the_prior_scores_with_vectors_made_anew(store: Store) -> None:
    fill(store)
    other = TrigramEncoder(fingerprint="another", dimension=32)
    passages = [hit.passage for hit in open_retriever(store, mode="bm25").search(QUESTION, k=3)]
    expected = (
        other.encode_passages([one.text for one in passages])
        @ (other.encode_questions([QUESTION])[0])
    )
    np.testing.assert_array_equal(Prior(other).score(QUESTION, passages), expected)


class Lettered:
    """Tells of each word its letters, so that words are alike by what they are spelled with."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def token_vectors(self, texts: Sequence[str], *, side: Side) -> list[TokenVectors]:
        if side == "passages":
            self.read += texts
        return [self._one(text.split()) for text in texts]

    def _one(self, words: list[str]) -> TokenVectors:
        rows = [[word.count(chr(97 + i)) for i in range(26)] for word in words]
        return TokenVectors(words, np.array(rows, np.float32).reshape(-1, 26))


def passage(text: str, title: str = "") -> Passage:
    return Passage(text, text, title, "s", None, 0, len(text))


def test_late_interaction_is_the_mean_of_the_best_cosines() -> None:
    asked, told = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    expected = np.mean([max(float(a @ b) for b in told) for a in asked])
    assert late_interaction(asked, told) == pytest.approx(expected)
    assert late_interaction(asked[:0], told) == 0.0
    assert late_interaction(asked, told[:0]) == 0.0


def test_maxsim_compares_each_word_with_its_likest() -> None:
    scores = MaxSim(Lettered()).score("red fox", [passage("der xof"), passage("red"), passage("q")])
    half = (1 + 0.0) / 2
    assert scores == pytest.approx([1.0, half, 0.0], abs=1e-3)


def test_titles_are_read_with_the_passage() -> None:
    scores = MaxSim(Lettered()).score("fox", [passage("q"), passage("q", title="fox")])
    assert scores == pytest.approx([0.0, 1.0], abs=1e-3)


def test_function_words_and_marks_ask_for_nothing() -> None:
    asked = Lettered().token_vectors(
        ["what ▁The fox ##es , ? ’ ␣".replace("␣", "")], side="questions"
    )
    assert len(question_vectors(asked[0])) == 2
    alone = Lettered().token_vectors(["who what"], side="questions")
    assert len(question_vectors(alone[0])) == 2


def test_passages_read_last_are_kept() -> None:
    encoder = Lettered()
    maxsim = MaxSim(encoder, kept=2)
    first = maxsim.score("fox", [passage("fox"), passage("ox")])
    again = maxsim.score("fox", [passage("fox"), passage("ox"), passage("fox")])
    assert encoder.read == ["fox", "ox"]
    assert again[:2] == pytest.approx(first)
    assert again[2] == again[0]
    maxsim.score("fox", [passage("hen")])
    maxsim.score("fox", [passage("ox")])
    maxsim.score("fox", [passage("fox")])
    assert encoder.read == ["fox", "ox", "hen", "fox"]
    maxsim.score("fox", [passage("ox")])  # asked for after the hen was, so the hen went
    assert encoder.read == ["fox", "ox", "hen", "fox"]


def test_maxsim_over_the_model_that_ships_its_kind(tmp_path: Path) -> None:
    from consilience.encoding import load_encoder

    encoder = load_encoder(write_tiny_model(tmp_path / "model"))
    told = encoder.token_vectors(["visit hours", "the bank, the card"], side="passages")
    assert [one.words for one in told] == [
        ["", "visit", "hours", ""],
        ["", "the", "bank", ",", "the", "card", ""],
    ]
    means = np.stack([one.vectors.mean(0) for one in told])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(
        means, encoder.encode_passages(["visit hours", "the bank, the card"]), atol=2e-3
    )
    scores = MaxSim(encoder).score("visit hours", [passage("bank exam"), passage("visit hours")])
    assert scores.argmax() == 1


def test_an_encoder_of_whole_texts_cannot_be_compared_by_tokens() -> None:
    with pytest.raises(UsageError) as error:
        open_reranker("maxsim", encoder=TrigramEncoder())
    assert error.value.message == "the encoder trigrams-0001 gives no vectors of tokens"
    assert error.value.hint == "leave out the reranker maxsim, or encode with torch"


@pytest.mark.parametrize(
    "name",
    ["magic", "", "maxsim:model", "cross-encoder", "cross-encoder:", "multi-vector:", "os.path:x"],
)
def test_only_rerankers_of_the_table_are_opened(name: str) -> None:
    with pytest.raises(UsageError) as error:
        open_reranker(name, encoder=TrigramEncoder())
    assert error.value.message == f"there is no reranker {name!r}"
    assert error.value.hint == "One of: maxsim, prior, cross-encoder:MODEL, multi-vector:MODEL."


@pytest.mark.parametrize("name", ["maxsim", "prior"])
def test_a_reranker_of_the_encoder_needs_one(name: str) -> None:
    with pytest.raises(UsageError, match=rf"^the reranker {name} needs an encoder, and this model"):
        open_reranker(name)


def test_without_the_package_its_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(DependencyError) as error:
        open_reranker("cross-encoder:folder")
    assert error.value.hint == "pip install 'consilience[rerank]'"


def test_refinements_work_on_one_another(store: Store) -> None:
    fill(store)
    plain = open_retriever(store, mode="bm25")
    assert refined(plain, Refinement(), store=store) is plain
    how = Refinement(rerank="prior", per_contributor=1, diversity=0.3)
    found = refined(plain, how, store=store, encoder=TrigramEncoder()).search(ASK, k=2)
    assert found[0].passage.text == TEXTS["leave"]


def test_every_refinement_that_is_named_is_made(store: Store) -> None:
    versions = [f"{TEXTS['leave']} Version {number}." for number in range(3)]
    store.add([Document(text, source=text[-2:], contributor="ward") for text in versions])
    store.add(Document("Annual leave must be applied for by March.", source="other"))
    plain = open_retriever(store, mode="bm25")
    question = "annual leave of employees"
    assert sources(plain, question, k=2) == ["0.", "1."]
    for how in (Refinement(per_contributor=1), Refinement(diversity=0.9)):
        assert sources(refined(plain, how, store=store), question, k=2) == ["0.", "other"], how
    again = Refinement(rerank="prior")
    encoder = TrigramEncoder()
    refined(plain, again, store=store, encoder=encoder).search(question, k=1)
    assert encoder.questions == [question]
