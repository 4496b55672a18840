"""Rankers by themselves, and what `PassageRetriever` does with rankings that are wrong."""

from collections.abc import Callable

import pytest

from consilience.retrieval.dense import DenseRanker
from consilience.retrieval.hybrid import HybridRanker, HybridWeights
from consilience.retrieval.lexical import LexicalRanker
from consilience.retrieval.ranking import EVERYTHING, Held, PassageRetriever, Ranker, Ranking, Scope
from consilience.store import Store
from tests.retrieval.corpus import fill
from tests.retrieval.encoders import TrigramEncoder

ASK = "employees receive annual leave, the bank charges an interest rate"


def lexical(store: Store) -> Ranker:
    return LexicalRanker(store)


def dense(store: Store) -> Ranker:
    return DenseRanker(store, TrigramEncoder())


def hybrid(store: Store) -> Ranker:
    return HybridRanker(lexical(store), dense(store), HybridWeights(en=0.5))


def named(store: Store, ranking: Ranking) -> set[str]:
    """The sources of ranked numbers; a number without a row is named as such."""
    rows = store.passages([number for number, _ in ranking])
    return {rows[n].source if n in rows else f"no row {n}" for n, _ in ranking}


@pytest.mark.parametrize("make", [lexical, dense, hybrid])
def test_a_ranking_holds_what_the_reader_may_read_and_nothing_removed(
    store: Store, make: Callable[[Store], Ranker]
) -> None:
    fill(store, "visits", "library")
    fill(store, "leave", access=("staff",))
    fill(store, "loans", access=("board", "bank"))
    ranker = make(store)
    everything = {"visits", "library", "leave", "loans"}

    def ranked(held: Held) -> set[str]:
        return named(store, ranker.rank(ASK, depth=20, scope=Scope(held)))

    assert {"leave", "loans"} <= ranked(None) <= everything
    store.remove("visits")
    assert ranked(frozenset()) <= {"library"}
    assert "leave" in ranked(frozenset({"staff"})) <= {"library", "leave"}
    assert "loans" in ranked(frozenset({"bank", "x"})) <= {"library", "loans"}
    fill(store, "leave", access=("board",))
    assert ranked(frozenset({"staff"})) <= {"library"}
    assert {"leave", "loans"} <= ranked(frozenset({"board"}))
    assert not any(name.startswith("no row") for name in ranked(None))


@pytest.mark.parametrize("make", [lexical, dense])
def test_the_filter_does_not_change_scores(store: Store, make: Callable[[Store], Ranker]) -> None:
    fill(store)
    ranker = make(store)
    for question in (ASK, "leave"):
        owner = ranker.rank(question, depth=20)
        assert ranker.rank(question, depth=20, scope=Scope(frozenset({"any"}))) == owner


class Liar:
    """A ranker that proposes every number up to fifty, whoever asks."""

    def rank(self, question: str, *, depth: int, scope: Scope = EVERYTHING) -> Ranking:
        return [(number, 1 / number) for number in range(1, 50)][:depth]


def test_a_wrong_ranking_shows_nobody_what_is_hidden_or_gone(store: Store) -> None:
    fill(store, "visits", "loans")
    fill(store, "leave", access=("staff",))
    store.remove("loans")
    retriever = PassageRetriever(store, Liar())

    def found(access: tuple[str, ...] | None) -> set[str]:
        return {hit.passage.source for hit in retriever.search("x", k=10, access=access)}

    assert found(None) == {"visits", "leave"}
    assert found(("staff",)) == {"visits", "leave"}
    assert found(("guests",)) == {"visits"}
