import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import bm25s
import numpy as np
import pytest
from numpy.typing import NDArray

from consilience.documents import Document
from consilience.errors import BusyError, ConsilienceError
from consilience.retrieval import following
from consilience.retrieval.base import Hit
from consilience.retrieval.derived import exclusive, read_manifest
from consilience.retrieval.following import RECIPE
from consilience.retrieval.lexical import LexicalRanker
from consilience.retrieval.ranking import PassageRetriever
from consilience.retrieval.tuning import Tuning
from consilience.store import Store
from consilience.text import analyze, analyze_question
from tests.retrieval.corpus import QUESTIONS, fill
from tests.retrieval.encoders import TrigramEncoder
from tests.text.strategies import FRAGMENTS

ASK = "How many days of annual leave do employees receive?"


def folder(store: Store) -> Path:
    return store.path / "derived" / "lexical"


def retriever(store: Store, *, patience: float = 0.0) -> PassageRetriever:
    return PassageRetriever(store, LexicalRanker(store, patience=patience))


def answers(store: Store) -> list[list[Hit]]:
    opened = retriever(store)
    return [opened.search(question, k=5) for question in QUESTIONS]


def sources(hits: list[Hit]) -> list[str]:
    return [hit.passage.source for hit in hits]


# Against another implementation of BM25.


def sentences_of(rng: random.Random, length: int) -> str:
    words = [f"word{int(rng.paretovariate(0.6)) % 200}" for _ in range(length)]
    return " ".join(words)


@pytest.fixture
def rng() -> random.Random:
    return random.Random(7)


def bm25s_scores(texts: list[str], question: str, numbers: Tuning) -> NDArray[np.float32]:
    reference = bm25s.BM25(method="lucene", k1=numbers.k1, b=numbers.b)
    reference.index([analyze(text) for text in texts], show_progress=False)
    known = [token for token in analyze_question(question) if token in reference.vocab_dict]
    scores: NDArray[np.float32] = reference.get_scores(known)
    return scores


@pytest.mark.parametrize("numbers", [Tuning(), Tuning(k1=1.2, b=0.75), Tuning(k1=2.0, b=0.0)])
def test_scores_are_those_of_bm25s(store: Store, rng: random.Random, numbers: Tuning) -> None:
    texts = [sentences_of(rng, rng.randint(5, 120)) for _ in range(80)]
    store.add([Document(text, source=str(i)) for i, text in enumerate(texts)])
    opened = PassageRetriever(store, LexicalRanker(store, tuning=numbers))
    for _ in range(10):
        question = sentences_of(rng, 4)
        # A factor that bm25s leaves out.
        expected = bm25s_scores(texts, question, numbers) * (numbers.k1 + 1)
        found = {int(h.passage.source): h.score for h in opened.search(question, k=80)}
        assert set(found) == set(np.flatnonzero(expected))
        assert [found[i] for i in sorted(found)] == pytest.approx(expected[expected > 0].tolist())


def test_statistics_are_those_of_the_passages_that_are_there(store: Store) -> None:
    texts = ["red fox", "red hen and a fox", "blue hen"]
    store.add([Document(text, source=text) for text in [*texts, "red red red", "fox fox"]])
    opened = retriever(store)
    opened.search("fox", k=1)
    store.remove("red red red", "fox fox")
    expected = bm25s_scores(texts, "red fox", Tuning())[:2] * (Tuning().k1 + 1)
    hits = opened.search("red fox", k=5)
    assert {hit.passage.source: hit.score for hit in hits} == pytest.approx(
        dict(zip(texts, expected.tolist(), strict=False))
    )


def test_a_ranker_has_the_numbers_that_its_store_keeps(store: Store) -> None:
    fill(store)
    usual = retriever(store).search(ASK, k=1)[0].score
    Tuning(k1=3.0).keep(store)
    assert retriever(store).search(ASK, k=1)[0].score != usual


def test_what_a_title_is_worth_is_decided_when_a_question_is_asked(store: Store) -> None:
    store.add([Document("It is four weeks.", source="title", title="Library loans")])
    store.add([Document("A library is a house for books.", source="text", title="House")])

    def best(title: float) -> list[str]:
        ranker = LexicalRanker(store, tuning=Tuning(title=title))
        return sources(PassageRetriever(store, ranker).search("library", k=2))

    assert best(5.0) == ["title", "text"]
    assert best(0.1) == ["text", "title"]
    assert best(0.0) == ["text"]


def test_titles_are_searched(store: Store) -> None:
    store.add([Document("It is four weeks.", source="a", title="Library loans")])
    assert sources(retriever(store).search("library", k=1)) == ["a"]


def test_a_change_of_tokens_must_raise_the_recipe() -> None:
    tokens = json.dumps([analyze(fragment) for fragment in FRAGMENTS], ensure_ascii=False)
    digest = hashlib.sha256(tokens.encode()).hexdigest()[:12]
    assert (RECIPE.split(",")[0], digest) == ("tokens 1", "f1c0618bb1d1"), (
        "analyze changed: raise RECIPE"
    )


# Whatever happens to the files.


def delete_everything(store: Store) -> None:
    shutil.rmtree(folder(store))


def delete_manifest(store: Store) -> None:
    (folder(store) / "manifest.json").unlink()


def garble_manifest(store: Store) -> None:
    (folder(store) / "manifest.json").write_text('{"sequence": "x"}')


def delete_files(store: Store) -> None:
    shutil.rmtree(folder(store) / "index")


def delete_one_file(store: Store) -> None:
    next((folder(store) / "index").glob("*.terms.npy")).unlink()


def truncate_every_file(store: Store) -> None:
    for path in (folder(store) / "index").glob("*.*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garble_one_byte(store: Store) -> None:
    path = next((folder(store) / "index").glob("*.rows.npy"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def empty_one_file(store: Store) -> None:
    next((folder(store) / "index").glob("*.forms.npy")).write_bytes(b"")


def exchange_two_files(store: Store) -> None:
    numbers, starts = (next((folder(store) / "index").glob(f"*.{f}.npy")) for f in PAIR)
    content = numbers.read_bytes()
    numbers.write_bytes(starts.read_bytes())
    starts.write_bytes(content)


PAIR = ("numbers", "starts")


def put_a_stranger_beside(store: Store) -> None:
    """Not used, and not in the way."""
    (folder(store) / "index" / "stranger.npy").write_bytes(b"")


def garble_notes(store: Store) -> None:
    (folder(store) / "noted.json").write_text("[1]")


def note_wrong_digests(store: Store) -> None:
    """As if the notes were of another machine."""
    files = (folder(store) / "index").iterdir()
    content = {path.name: ["0 1 2 3", "0" * 64] for path in files}
    (folder(store) / "noted.json").write_text(json.dumps(content))


def change_manifest(**changes: object) -> Callable[[Store], None]:
    def change(store: Store) -> None:
        path = folder(store) / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


DAMAGES = [
    delete_everything,
    delete_manifest,
    garble_manifest,
    delete_files,
    delete_one_file,
    truncate_every_file,
    garble_one_byte,
    empty_one_file,
    exchange_two_files,
    put_a_stranger_beside,
    garble_notes,
    note_wrong_digests,
    change_manifest(identity="of another store"),
    change_manifest(recipe="tokens 0"),
    change_manifest(sequence=10_000),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_is_rebuilt_and_answers_the_same(
    store: Store, damage: Callable[[Store], None]
) -> None:
    fill(store)
    before = answers(store)
    damage(store)
    assert answers(store) == before
    manifest = read_manifest(folder(store) / "manifest.json")
    assert manifest is not None
    assert (manifest.recipe, manifest.identity) == (RECIPE, store.identity)
    assert manifest.sequence == store.sequence


def test_an_intact_index_is_not_rebuilt(store: Store) -> None:
    fill(store)
    answers(store)
    before = {path: path.stat().st_mtime_ns for path in (folder(store) / "index").glob("*.*")}
    answers(store)
    assert {p: p.stat().st_mtime_ns for p in (folder(store) / "index").glob("*.*")} == before


def test_an_index_from_before_a_removal_is_replayed(store: Store, tmp_path: Path) -> None:
    fill(store)
    answers(store)
    shutil.copytree(folder(store), tmp_path / "old")
    store.remove("leave")
    store.add(Document("Annual leave is now thirty days.", source="new leave"))
    answers(store)
    shutil.rmtree(folder(store))
    shutil.copytree(tmp_path / "old", folder(store))
    found = sources(retriever(store).search(ASK, k=10))
    assert found[0] == "new leave"
    assert "leave" not in found


def test_an_index_ahead_of_a_store_that_was_put_back_is_rebuilt(
    store: Store, tmp_path: Path
) -> None:
    fill(store, "library")
    shutil.copytree(store.path, tmp_path / "later")
    with Store.open(tmp_path / "later", encoder=TrigramEncoder()) as later:
        fill(later, "loans")
        fill(later, "leave")
        answers(later)
        shutil.copytree(folder(later), folder(store))
    fill(store, "visits")  # gets the number that the loans have in the index
    assert sources(retriever(store).search("visiting hours", k=1)) == ["visits"]


def test_removed_passages_leave_the_index(store: Store) -> None:
    fill(store)
    opened = LexicalRanker(store)
    opened.rank(ASK, depth=1)
    for source in ("leave", "loans"):
        store.remove(source)
        opened.rank(ASK, depth=1)
        for ranker in (opened, LexicalRanker(store)):
            assert len(ranker._index.collection()) == len(store)


def test_a_stale_index_never_answers_with_a_removed_passage(store: Store) -> None:
    fill(store)
    opened = retriever(store)
    assert sources(opened.search(ASK, k=1)) == ["leave"]
    with exclusive(folder(store) / "lock", patience=0) as alone:
        assert alone
        store.remove("leave")
        fill(store, "年假")
        assert "leave" not in sources(opened.search(ASK, k=20))
        assert "leave" not in sources(retriever(store).search(ASK, k=20))
    fill(store, "leave")
    assert sources(opened.search(ASK, k=1)) == ["leave"]


def test_removed_passages_of_a_stale_index_leave_their_places_to_others(store: Store) -> None:
    for number in range(40):
        store.add(Document(f"Annual leave, leave, leave: rule {number}.", source=f"rule {number}"))
    fill(store, "leave")
    opened = retriever(store)
    opened.search(ASK, k=1)
    with exclusive(folder(store) / "lock", patience=0):
        store.remove(*(f"rule {number}" for number in range(40)))
        assert sources(opened.search("leave", k=1)) == ["leave"]


def test_without_any_index_a_locked_folder_is_busy(store: Store) -> None:
    fill(store)
    folder(store).mkdir(parents=True)
    with exclusive(folder(store) / "lock", patience=0), pytest.raises(BusyError) as error:
        retriever(store).search(ASK, k=1)
    assert error.value.message == f"another process is building the index in {folder(store)}"
    assert error.value.hint == "Ask again in a moment."
    assert sources(retriever(store).search(ASK, k=1)) == ["leave"]


STEPS = ["_empty", "write_segment", "read_segment", "write_merged", "digest", "write_manifest"]

UNUSED = {("_empty", True), ("write_merged", False)}  # no index to empty, no segments to merge


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("filled", [True, False])
def test_a_process_that_dies_at_any_step_leaves_no_wrong_answer(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: str, when: str, filled: bool
) -> None:
    class Death(BaseException):
        """What no handler catches."""

    def dying(*args: object, **kwargs: object) -> object:
        if when == "after":
            original(*args, **kwargs)
        raise Death

    if filled:
        fill(store, "loans")
        answers(store)
    fill(store)
    owner = following.FollowingIndex if step == "_empty" else following
    original = getattr(owner, step)
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, dying)
        opened = retriever(store)
        if (step, filled) not in UNUSED:
            with pytest.raises(Death):
                opened.search(ASK, k=1)
    assert sources(retriever(store).search(ASK, k=1)) == ["leave"]
    assert sources(opened.search(ASK, k=1)) == ["leave"]


def test_an_index_that_cannot_be_written_says_so(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    fill(store)
    monkeypatch.setattr(following, "write_segment", full)
    with pytest.raises(ConsilienceError) as error:
        retriever(store).search(ASK, k=1)
    assert error.value.message == (
        f"the index in {folder(store)} cannot be written: [Errno 28] No space left on device"
    )
    assert error.value.hint.startswith("Free some space, or delete ")


@pytest.mark.parametrize("place", ["derived/lexical", "derived/lexical/lock"])
def test_what_stands_in_the_place_of_the_index_is_named(store: Store, place: str) -> None:
    fill(store)
    wrong = store.path / place
    wrong.parent.mkdir(parents=True, exist_ok=True)
    if wrong.name == "lock":
        wrong.mkdir()
    else:
        wrong.write_text("not an index", "utf-8")
    with pytest.raises(ConsilienceError, match="derived/lexical cannot be written"):
        LexicalRanker(store).rank(ASK, depth=1)
