"""Links beside another ranker: one and two steps, labels, filters, and no graph at all."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilience.documents import triples_of
from consilience.errors import UsageError
from consilience.retrieval import open_retriever
from consilience.retrieval.graph import (
    LinkedRanker,
    LinkWeights,
    add_links,
    longest,
    says_something,
    without,
)
from consilience.retrieval.links import Mention
from consilience.retrieval.ranking import EVERYTHING, PassageRetriever, Ranking, Scope
from consilience.store import Store, Where
from tests.retrieval.corpus import QUESTIONS, fill
from tests.retrieval.encoders import TrigramEncoder
from tests.retrieval.graphs import about, graph


class Fixed:
    """Ranks the same numbers whatever is asked."""

    def __init__(self, ranking: Ranking) -> None:
        self.ranking = ranking

    def rank(self, question: str, *, depth: int, scope: Scope = EVERYTHING) -> Ranking:
        return self.ranking[:depth]


def found(store: Store, question: str, weights: LinkWeights | None = None, **how) -> list[str]:
    """Sources that links alone lead to."""
    ranker = LinkedRanker(store, Fixed([]), weights=weights or LinkWeights())
    return [
        hit.passage.source for hit in PassageRetriever(store, ranker).search(question, k=9, **how)
    ]


def test_the_passage_about_what_is_named_comes_first(store: Store) -> None:
    store.add(graph())
    assert found(store, "What did Mary Shelley write?") == ["Mary Shelley"]
    assert found(store, "广东工业大学的所在地") == ["广东工业大学"]
    assert found(store, "What is a ladder?") == []


def test_a_second_step_leads_to_what_the_first_one_names(store: Store) -> None:
    store.add(graph())
    asked = "the gender of the father of Ada Lovelace"
    assert found(store, asked) == ["Lord Byron", "Ada Lovelace"]
    assert found(store, asked, LinkWeights(steps=(1.0,))) == ["Ada Lovelace"]
    three = found(
        store, "the county of the home of the father of Ada Lovelace", LinkWeights(steps=(1, 1, 1))
    )
    assert set(three) == {"Lord Byron", "Ada Lovelace", "Newstead Abbey"}
    assert found(store, "刘晓华（物理学教授）任职的大学的所在地")[0] == "广东工业大学"


def test_the_rest_of_the_question_says_which_of_one_name_is_meant(store: Store) -> None:
    store.add(graph())
    assert found(store, "刘晓华主讲什么课程")[0] == "刘晓华（物理学教授）"
    assert found(store, "刘晓华的代表作")[0] == "刘晓华（歌手）"
    assert "什么" not in found(store, "刘晓华主讲什么课程")


def test_a_whole_name_comes_before_one_without_its_explanation(store: Store) -> None:
    store.add([about("水星（行星）", [("直径", "4879")]), about("水星", [("父亲", "朱庇特")])])
    assert found(store, "水星") == ["水星", "水星（行星）"]


def test_of_two_names_the_longer_one_is_worth_more(store: Store) -> None:
    store.add([about("广东"), about("Ada Lovelace", [("wrote", "notes")])])
    assert found(store, "广东 Ada Lovelace") == ["Ada Lovelace", "广东"]


def test_a_name_that_also_stands_inside_a_longer_one_is_still_named(store: Store) -> None:
    store.add(graph())
    assert set(found(store, "广东和广东工业大学")) == {"广东", "广东工业大学"}
    assert found(store, "广东工业大学") == ["广东工业大学"]


def test_things_that_lead_to_each_other_are_taken_once(store: Store) -> None:
    store.add([about("Ada Lovelace"), about("Lord Byron")])
    steps = LinkWeights(steps=(0.5, 0.5, 1.0, 1.0))
    ranker = LinkedRanker(store, Fixed([]), weights=steps)
    assert all(score <= 0.5 for _, score in ranker.rank("Ada Lovelace", depth=9))


@pytest.mark.parametrize("mode", ["bm25", "dense", "hybrid"])
def test_every_mode_has_links(store: Store, encoder: TrigramEncoder, mode: str) -> None:
    fill(store)
    store.add(graph())
    retriever = open_retriever(store, mode=mode, encoder=encoder)  # type: ignore[arg-type]
    hits = retriever.search("Which gender has the father of Ada Lovelace?", k=2)
    assert {hit.passage.source for hit in hits} == {"Lord Byron", "Ada Lovelace"}
    byron = next(hit.passage for hit in hits if hit.passage.source == "Lord Byron")
    start = byron.start + byron.text.index("male")
    (triple,) = triples_of(store.document(byron.source), start, start + 4)
    assert (triple.predicate, triple.object) == ("<http://example.org/gender>", '"male"')


@pytest.mark.parametrize("question", [*QUESTIONS, "nothing of the kind"])
def test_without_names_the_ranking_is_the_others(
    store: Store, encoder: TrigramEncoder, question: str
) -> None:
    fill(store)
    plain = Fixed([(3, 2.0), (1, 1.5), (2, 0.1)])
    assert LinkedRanker(store, plain).rank(question, depth=2) == plain.ranking[:2]
    store.add(about("Mary Shelley"))
    assert LinkedRanker(store, plain).rank(question, depth=2) == plain.ranking[:2]


def test_the_other_ranker_is_asked_within_the_same_scope(store: Store) -> None:
    store.add(graph())
    asked: list[tuple[int, Scope]] = []

    class Remembering(Fixed):
        def rank(self, question: str, *, depth: int, scope: Scope = EVERYTHING) -> Ranking:
            asked.append((depth, scope))
            return super().rank(question, depth=depth, scope=scope)

    ranker = LinkedRanker(store, Remembering([]))
    scope = Scope(frozenset({"staff"}), Where(sources=("Lord Byron",)))
    for question in ("Lord Byron", "nothing of the kind"):
        ranker.rank(question, depth=3, scope=scope)
    assert asked == [(100, scope), (3, scope)]  # as many as the scale of its scores needs


def test_hidden_passages_are_neither_proposed_nor_followed(store: Store) -> None:
    store.add(
        [
            replace(about("Ada Lovelace"), access=("staff",)),
            about("Lord Byron"),
        ]
    )
    assert found(store, "father of Ada Lovelace", access=("staff",)) == [
        "Ada Lovelace",
        "Lord Byron",
    ]
    assert found(store, "father of Ada Lovelace", access=("guests",)) == []
    assert found(store, "father of Ada Lovelace", access=()) == []
    assert found(store, "father of Ada Lovelace") == ["Ada Lovelace", "Lord Byron"]


def test_a_hidden_longer_name_leaves_the_shorter_one(store: Store) -> None:
    store.add(
        [
            replace(about("广东工业大学"), access=("staff",)),
            about("广东"),
        ]
    )
    assert found(store, "广东工业大学的省会", access=()) == ["广东"]
    assert found(store, "广东工业大学的省会", access=("staff",)) == ["广东工业大学"]


def test_hidden_things_of_the_same_name_take_no_place(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consilience.retrieval.graph.MOST", 4)
    store.add([replace(about("广东", source=f"g{n}"), access=("staff",)) for n in range(9)])
    store.add(about("广东"))
    assert found(store, "广东的省会", access=()) == ["广东"]
    assert len(found(store, "广东的省会")) == 4


def test_a_filter_holds_for_links_too(store: Store) -> None:
    store.add(graph())
    only = Where(sources=("Lord Byron",))
    assert found(store, "father of Ada Lovelace", where=only) == []
    assert found(store, "Lord Byron", where=only) == ["Lord Byron"]


def test_a_removed_passage_is_not_proposed(store: Store) -> None:
    store.add(graph())
    asked = "the gender of the father of Ada Lovelace"
    assert "Lord Byron" in found(store, asked)
    store.remove("Lord Byron")
    assert found(store, asked) == ["Ada Lovelace"]


def test_links_are_added_on_the_scale_of_the_ranking() -> None:
    ranking = [(1, 20.0), (2, 10.0)]
    assert add_links(ranking, {2: 1.0, 3: 0.5}, share=0.5) == [(2, 15.0), (1, 10.0), (3, 5.0)]
    assert add_links([], {7: 0.5}, share=0.5) == [(7, 0.25)]
    below = add_links([(1, -0.2), (2, -0.6)], {2: 1.0}, share=0.75)
    assert below == [(2, pytest.approx(-0.3)), (1, pytest.approx(-0.5))]


rankings = st.dictionaries(
    st.integers(0, 30), st.floats(-100, 100, allow_subnormal=False), max_size=20
).map(lambda scores: sorted(scores.items(), key=lambda ranked: (-ranked[1], ranked[0])))
links = st.dictionaries(st.integers(0, 30), st.floats(0, 1), max_size=20)


@given(rankings, links, st.floats(0, 1))
def test_a_link_never_costs_a_place(
    ranking: Ranking, linked: dict[int, float], share: float
) -> None:
    mixed = add_links(ranking, linked, share=share)
    assert {n for n, _ in mixed} == dict(ranking).keys() | linked.keys()
    assert [s for _, s in mixed] == sorted((s for _, s in mixed), reverse=True)
    scores, before = dict(mixed), dict(ranking)
    for a in before:
        for b in before:
            if before[a] >= before[b] and linked.get(a, 0) >= linked.get(b, 0):
                assert scores[a] >= scores[b] - 1e-6


def test_of_names_that_overlap_the_longest_counts() -> None:
    def mention(start: int, end: int, entity: int, *, bare: bool = False) -> Mention:
        return Mention(start, end, entity, entity, bare)

    long, inside, apart, twin = (
        mention(2, 8, 1),
        mention(2, 4, 2),
        mention(8, 10, 3),
        mention(2, 8, 4),
    )
    assert longest([inside, apart, long, twin]) == [long, twin, apart]
    assert without("0123456789ab", [long, apart]) == "01        ab"


@pytest.mark.parametrize("name", ["什么", "多少", "the", "who"])
def test_words_of_every_question_are_no_names(name: str) -> None:
    assert not says_something(name)


@pytest.mark.parametrize("name", ["北京", "paris", "the beatles", "1984"])
def test_other_words_are(name: str) -> None:
    assert says_something(name)


def test_weights_out_of_bounds_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^weights of links must lie between 0 and 1, received "):
        LinkWeights(steps=(1.0, 2.0))
