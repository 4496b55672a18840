import random
import threading
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from consilience.retrieval import scoring
from consilience.retrieval.postings import term_keys
from consilience.retrieval.scoring import Bm25, Collection
from consilience.retrieval.tuning import Tuning
from tests.retrieval.small_index import WORDS, Page, best_of, segment_of

NONE = np.empty(0, np.int64)

words = st.lists(st.sampled_from(WORDS), max_size=8).map(tuple)
labels = st.sampled_from([(), (), ("a",), ("a", "b"), ("c",)])
pages = st.builds(Page, words, words.map(lambda title: title[:2]), labels)
numbers = st.builds(
    Tuning,
    k1=st.sampled_from([0.0, 0.6, 1.2, 5.0]),
    b=st.sampled_from([0.0, 0.4, 1.0]),
    title=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
)


def same(found: list[tuple[int, float]], expected: list[tuple[int, float]]) -> None:
    """Equal but for rounding, which may decide among scores that differ by nothing else."""
    assert [score for _, score in found] == pytest.approx([s for _, s in expected], rel=1e-4)
    scores = dict(expected)
    for number, score in found:
        assert score == pytest.approx(scores.get(number, expected[-1][1]), rel=1e-4)


@given(
    pages=st.lists(pages, max_size=30),
    cuts=st.sets(st.integers(1, 29), max_size=3),
    gone=st.sets(st.integers(0, 29), max_size=10),
    question=st.lists(st.sampled_from([*WORDS, "unheard"]), max_size=6),
    numbers=numbers,
    depth=st.integers(1, 12),
    held=st.sampled_from([None, frozenset(), frozenset("a"), frozenset("bc")]),
    chosen=st.none() | st.sets(st.integers(0, 99), max_size=30),
)
@settings(deadline=None, max_examples=300)
def test_what_is_found_is_what_the_formula_says(
    pages: list[Page],
    cuts: set[int],
    gone: set[int],
    question: list[str],
    numbers: Tuning,
    depth: int,
    held: frozenset[str] | None,
    chosen: set[int] | None,
) -> None:
    everything = {3 * place + 1: page for place, page in enumerate(pages)}
    dead = {3 * place + 1 for place in gone} & everything.keys()
    edges = [0, *sorted(cut for cut in cuts if cut < len(pages)), len(pages)]
    items = list(everything.items())
    segments = [segment_of(dict(items[a:b])) for a, b in pairwise(edges) if a < b]
    collection = Collection(segments, np.array(sorted(dead), np.int64))
    found = Bm25(collection, numbers).search(
        Counter(question),
        depth=depth,
        held=held,
        chosen=None if chosen is None else np.array(sorted(chosen), np.int64),
    )
    alive = {number: page for number, page in everything.items() if number not in dead}
    same(found, best_of(alive, question, numbers, depth=depth, held=held, chosen=chosen))


def zipf(rng: random.Random, count: int) -> list[Page]:
    """Pages in which a few words are in most and most words in a few."""

    def some(least: int, most: int) -> tuple[str, ...]:
        length = rng.randint(least, most)
        return tuple(f"w{int(rng.paretovariate(0.5)) % 4000}" for _ in range(length))

    return [Page(some(10, 60), some(0, 2)) for _ in range(count)]


@pytest.fixture(scope="module")
def large() -> dict[int, Page]:
    return dict(enumerate(zipf(random.Random(3), 3000), start=1))


@pytest.fixture(scope="module")
def collection(large: dict[int, Page]) -> Collection:
    items = list(large.items())
    return Collection([segment_of(dict(items[:2000])), segment_of(dict(items[2000:]))], NONE)


def questions(count: int) -> list[list[str]]:
    rng = random.Random(11)
    return [
        [f"w{int(rng.paretovariate(0.5)) % 4000}" for _ in range(rng.randint(1, 9))]
        for _ in range(count)
    ]


def everything_scored(collection: Collection, question: list[str]) -> dict[int, float]:
    return dict(Bm25(collection, Tuning()).search(Counter(question), depth=len(collection)))


@pytest.mark.parametrize("depth", [1, 13, 100])
def test_leaving_out_what_cannot_win_leaves_out_no_winner(
    collection: Collection, depth: int
) -> None:
    scorer = Bm25(collection, Tuning())
    for question in questions(60):
        found = scorer.search(Counter(question), depth=depth)
        scores = everything_scored(collection, question)
        expected = sorted(((-score, number) for number, score in scores.items()))[:depth]
        same(found, [(number, -score) for score, number in expected])


def test_common_words_are_not_scored_everywhere(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer, scored = Bm25(collection, Tuning()), []

    def add(terms: list[scoring._Term], *args: object) -> NDArray[np.int64]:
        rows: NDArray[np.int64] = original(terms, *args)
        scored.append(len(rows))
        return rows

    original = scorer._add
    monkeypatch.setattr(scorer, "_add", add)
    scorer.search(Counter(["w1", *rare_words(collection)]), depth=1)
    assert sum(scored) < 300 < scorer._known["w1"].postings


def rare_words(collection: Collection) -> list[str]:
    """Words of which some page has several, and few pages any."""
    scorer = Bm25(collection, Tuning())
    known = scorer._looked_up([f"w{i}" for i in range(1, 4000)])
    return [word for word, term in known.items() if 20 <= term.postings <= 60][:3]


def test_a_common_word_that_a_segment_lacks_is_not_taken_for_another() -> None:
    """The first postings of a segment begin where those of a term that it lacks would."""
    words = sorted(WORDS, key=lambda word: term_keys([word])[0])
    first, common, rare = words[0], words[1], words[2]
    old = {n: Page((first, common) * (n % 3 + 1)) for n in range(1, 50)} | {50: Page((rare,) * 3)}
    new = {n: Page((first,) * (n % 3 + 1)) for n in range(60, 90)} | {99: Page((first, rare))}
    scorer = Bm25(Collection([segment_of(old), segment_of(new)], NONE), Tuning())
    for question in ([rare, common], [rare, first], [rare, first, common]):
        expected = best_of(old | new, question, Tuning(), depth=2)
        same(scorer.search(Counter(question), depth=2), expected)


def test_equal_scores_are_in_the_order_of_their_numbers() -> None:
    pages = {number: Page(("w1", "w2")) for number in (5, 9, 2, 7)}
    collection = Collection([segment_of(pages), segment_of({11: Page(("w1", "w2"))})], NONE)
    found = Bm25(collection, Tuning()).search({"w1": 1}, depth=4)
    assert [number for number, _ in found] == [2, 5, 7, 9]


def test_no_passages_and_no_terms_find_nothing() -> None:
    empty = Bm25(Collection([], NONE), Tuning())
    assert empty.search({"w1": 1}, depth=5) == []
    wordless = Bm25(Collection([segment_of({1: Page(())})], NONE), Tuning())
    assert wordless.search({"w1": 1}, depth=5) == []
    some = Bm25(Collection([segment_of({1: Page(("w1",))})], NONE), Tuning())
    assert some.search({}, depth=5) == []


def test_a_search_that_fails_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = {n: Page(("w1", "w2", "w3")[: n % 3 + 1]) for n in range(1, 9)}
    scorer = Bm25(Collection([segment_of(pages)], NONE), Tuning())
    before = scorer.search({"w1": 1, "w2": 1}, depth=5)

    def interrupted(rows: NDArray[np.int64]) -> NDArray[np.int64]:
        if len(rows):  # now there are sums that were begun
            raise KeyboardInterrupt
        return rows

    with monkeypatch.context() as patch:
        patch.setattr(scoring, "_distinct", interrupted)
        with pytest.raises(KeyboardInterrupt):
            scorer.search({"w1": 1, "w2": 1}, depth=5)
    assert scorer.search({"w1": 1, "w2": 1}, depth=5) == before


def test_filter_and_labels_hold_together() -> None:
    pages = {1: Page(("w1",), access=("a",)), 2: Page(("w1",)), 3: Page(("w1",))}
    scorer = Bm25(Collection([segment_of(pages)], NONE), Tuning())
    chosen = np.array([1, 2])
    for held, seen in ((None, [1, 2]), (frozenset("a"), [1, 2]), (frozenset[str](), [2])):
        found = scorer.search({"w1": 1}, depth=3, held=held, chosen=chosen)
        assert [number for number, _ in found] == seen


def test_a_scope_is_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Bm25(Collection([segment_of({1: Page(("w1",))})], NONE), Tuning())
    made: list[object] = []
    original = scorer._confined
    monkeypatch.setattr(scorer, "_confined", lambda *scope: made.append(scope) or original(*scope))
    chosen = np.array([1])
    for _ in range(3):
        scorer.search({"w1": 1}, depth=1, held=frozenset())
        scorer.search({"w1": 1}, depth=1, chosen=chosen)
    assert len(made) == 2
    assert scorer.search({"w1": 1}, depth=1, chosen=np.array([2])) == []


def test_many_scopes_and_terms_are_not_all_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "_KNOWN", 10)
    scorer = Bm25(Collection([segment_of({1: Page(("w1",))})], NONE), Tuning())
    for i in range(50):
        assert scorer.search({"w1": 1, f"x{i}": 1}, depth=1, held=frozenset([str(i)]))
        assert len(scorer._known) <= 10
        assert len(scorer._scopes) <= 8


def test_threads_find_the_same(collection: Collection) -> None:
    scorer, asked = Bm25(collection, Tuning()), questions(40)
    expected = [scorer.search(Counter(question), depth=10) for question in asked]
    wrong: list[int] = []

    def ask() -> None:
        found = [scorer.search(Counter(question), depth=10) for question in asked]
        wrong.extend(i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
