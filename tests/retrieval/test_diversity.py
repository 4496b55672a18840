from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilience.documents import Document
from consilience.errors import UsageError
from consilience.retrieval import Retriever, open_retriever
from consilience.retrieval.diversity import CappedByContributor, Diverse, marginal_relevance
from consilience.store import Store, Where
from tests.retrieval.contract import ASK, RetrieverContract, sources
from tests.retrieval.corpus import TEXTS, fill


class TestCapped(RetrieverContract):
    def open(self, store: Store) -> Retriever:
        return CappedByContributor(open_retriever(store, mode="bm25"), 3)


class TestDiverse(RetrieverContract):
    def open(self, store: Store) -> Retriever:
        return Diverse(open_retriever(store, mode="bm25"), store, 0.2)


def add_versions(store: Store, count: int, *, contributor: str = "", source: str = "v") -> None:
    store.add(
        [
            Document(
                f"{TEXTS['leave']} Version {n}.", source=f"{source}{n}", contributor=contributor
            )
            for n in range(count)
        ]
    )


def test_no_contributor_has_more_passages_than_its_cap(store: Store) -> None:
    add_versions(store, 30, contributor="ward 1")
    add_versions(store, 2, contributor="ward 2", source="w")
    plain = open_retriever(store, mode="bm25")
    hits = CappedByContributor(plain, 2).search(ASK, k=4)
    assert [hit.passage.contributor for hit in hits].count("ward 1") == 2
    assert [hit.passage.contributor for hit in hits].count("ward 2") == 2
    kept = {hit.passage.id for hit in hits}
    best = [hit for hit in plain.search(ASK, k=40) if hit.passage.id in kept]
    assert best == hits
    first = {"ward 1": 0, "ward 2": 0}
    for hit in plain.search(ASK, k=40):
        first[hit.passage.contributor] += 1
        assert (hit.passage.id in kept) == (first[hit.passage.contributor] <= 2)


def test_what_the_cap_turns_away_takes_no_place(store: Store) -> None:
    add_versions(store, 60, contributor="loud")
    store.add(Document("The annual report on salmon.", source="quiet", contributor="quiet"))
    capped = CappedByContributor(open_retriever(store, mode="bm25"), 1)
    hits = capped.search("annual leave", k=2)
    assert [hit.passage.contributor for hit in hits] == ["loud", "quiet"]


def test_a_document_without_a_contributor_stands_for_itself(store: Store) -> None:
    add_versions(store, 3)
    fill(store, "visits")
    capped = CappedByContributor(open_retriever(store, mode="bm25"), 1)
    assert sorted(sources(capped)) == ["v0", "v1", "v2"]


def test_a_source_is_not_the_contributor_of_the_same_name(store: Store) -> None:
    store.add(Document(f"{TEXTS['leave']} One.", source="a", contributor="b"))
    store.add(Document(f"{TEXTS['leave']} Two.", source="b"))
    capped = CappedByContributor(open_retriever(store, mode="bm25"), 1)
    assert sorted(sources(capped)) == ["a", "b"]


def test_the_cap_holds_within_filter_and_labels(store: Store) -> None:
    add_versions(store, 3, contributor="x")
    store.add(Document(TEXTS["leave"], source="secret", contributor="x", access=("board",)))
    capped = CappedByContributor(open_retriever(store, mode="bm25"), 2)
    assert sources(capped, access=()) == ["v0", "v1"]
    assert sources(capped, where=Where(sources=("v1",))) == ["v1"]


@pytest.mark.parametrize("most", [0, -2])
def test_a_cap_below_one_is_refused(store: Store, most: int) -> None:
    with pytest.raises(UsageError) as error:
        CappedByContributor(open_retriever(store, mode="bm25"), most)
    assert error.value.message == (
        f"the passages of a contributor must be 1 or more, received {most}"
    )
    assert error.value.hint == "leave it out for no limit"


@pytest.mark.parametrize("diversity", [-0.1, 1.5, float("nan")])
def test_a_diversity_outside_0_and_1_is_refused(store: Store, diversity: float) -> None:
    with pytest.raises(UsageError) as error:
        Diverse(open_retriever(store, mode="bm25"), store, diversity)
    assert error.value.message == f"the diversity must lie between 0 and 1, received {diversity}"
    assert error.value.hint == "0 is relevance alone; begin with 0.3"


def test_without_diversity_the_order_stays(store: Store) -> None:
    fill(store)
    plain = open_retriever(store, mode="bm25")
    assert sources(Diverse(plain, store, 0.0)) == sources(plain)


def test_passages_that_say_the_same_are_passed_over(store: Store) -> None:
    add_versions(store, 6)
    store.add(Document("Annual leave must be applied for by March.", source="other"))
    plain = open_retriever(store, mode="bm25")
    question = "annual leave of employees"
    assert "other" not in sources(plain, question, k=2)
    hits = Diverse(plain, store, 0.9).search(question, k=2)
    assert [hit.passage.source for hit in hits][1] == "other"
    assert hits[0].passage == plain.search(question, k=1)[0].passage


def test_a_passage_that_is_removed_meanwhile_does_no_harm(store: Store) -> None:
    fill(store)

    class Late:
        def numbers(self, ids: Sequence[str]) -> dict[str, int]:
            found = store.numbers(ids)
            store.remove("leave")
            return found

        def vectors(self, numbers: Sequence[int]) -> object:
            return store.vectors(numbers)

    found = Diverse(open_retriever(store, mode="bm25"), Late(), 0.5).search(ASK, k=3)  # type: ignore[arg-type]
    assert found[0].passage.source == "leave"


def greedily(
    relevance: Sequence[float], likeness: np.ndarray, k: int, diversity: float
) -> list[int]:
    """The definition, word by word."""
    taken: list[int] = []
    while len(taken) < min(k, len(relevance)):
        values = {
            d: (1 - diversity) * relevance[d]
            - diversity * max([0.0, *(likeness[d, other] for other in taken)])
            for d in range(len(relevance))
            if d not in taken
        }
        taken.append(max(values, key=lambda d: (values[d], -d)))
    return taken


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=8),
    st.integers(1, 9),
    st.floats(0, 1),
    st.integers(0, 2**32 - 1),
)
def test_marginal_relevance_is_its_definition(
    relevance: list[float], k: int, diversity: float, seed: int
) -> None:
    vectors = np.random.default_rng(seed).normal(size=(len(relevance), 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    likeness = vectors @ vectors.T
    taken = marginal_relevance(np.array(relevance), likeness, k=k, diversity=diversity)
    assert [place for place, _ in taken] == greedily(relevance, likeness, k, diversity)
    values = [value for _, value in taken]
    assert all(a >= b - 1e-12 for a, b in combinations(values, 2))


def test_numbers_of_passages_that_are_gone_are_left_out(store: Store) -> None:
    fill(store, "leave", "visits")
    ids = [hit.passage.id for hit in open_retriever(store, mode="bm25").search(ASK, k=5)]
    numbers = store.numbers([*ids, "nobody"])
    assert list(numbers) == ids
    assert {store.passages([n])[n].id for n in numbers.values()} == set(ids)
    assert store.numbers([]) == {}
