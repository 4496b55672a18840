"""Numbers found by measuring, on stores where it is known what must be found."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from consilience.documents import Document, Passage
from consilience.errors import UsageError
from consilience.evaluation import tuning as searching
from consilience.evaluation.tuning import TuneOptions, gold_in, tune
from consilience.questions import Question
from consilience.retrieval import HybridWeights, Tuning, open_retriever
from consilience.store import Store
from tests.retrieval.encoders import TrigramEncoder

SUBJECTS = [
    "salmon",
    "ladder",
    "harbour",
    "museum",
    "orchard",
    "glacier",
    "violin",
    "pottery",
    "lantern",
    "compass",
]
PLACES = ["north", "south", "east", "west"]


@pytest.fixture
def encoder() -> TrigramEncoder:
    return TrigramEncoder()


@pytest.fixture
def store(tmp_path: Path, encoder: TrigramEncoder) -> Iterator[Store]:
    with Store.open(tmp_path / "knowledge", encoder=encoder) as opened:
        yield opened


def misspelt(word: str) -> str:
    return f"{word[:-1]}{word[-1]}{word[-1]}z"


def fill(store: Store) -> None:
    store.add(
        [
            Document(f"The {subject} of the {place} is kept in room {i}{j}.", source=f"{i}{j}")
            for i, subject in enumerate(SUBJECTS)
            for j, place in enumerate(PLACES)
        ]
    )


def asked(*, spelt: bool) -> list[Question]:
    """Every passage asked for, by its words or by misspelt ones, which only trigrams know."""
    write = str if spelt else misspelt
    return [
        Question(f"{write(subject)} {write(place)}", positive_ids=(f"{i}{j}",))
        for i, subject in enumerate(SUBJECTS)
        for j, place in enumerate(PLACES)
    ]


def test_the_share_goes_to_the_half_that_knows(store: Store, encoder: TrigramEncoder) -> None:
    fill(store)
    options = TuneOptions(weights=HybridWeights(en=0.0))
    found = tune(store, asked(spelt=False), encoder=encoder, options=options)
    assert found.tuning.en is not None
    assert found.tuning.en > 0
    assert found.tuning.zh is None
    assert found.held
    assert found.after["fit"]["mrr@10"] > found.before["fit"]["mrr@10"] + 0.5
    assert found.after["check"]["mrr@10"] > found.before["check"]["mrr@10"] + 0.5
    assert found.questions == {"fit": 20, "check": 20, "left_out": 0}


def test_what_cannot_be_better_stays(store: Store, encoder: TrigramEncoder) -> None:
    fill(store)
    found = tune(store, asked(spelt=True), encoder=encoder)
    old = Tuning()
    assert (found.tuning.k1, found.tuning.b, found.tuning.en) == (old.k1, old.b, None)
    assert found.after["check"]["mrr@10"] == found.before["check"]["mrr@10"] == 1.0


def test_the_numbers_are_those_of_the_search_itself(store: Store, encoder: TrigramEncoder) -> None:
    fill(store)
    questions = asked(spelt=False)
    found = tune(store, questions, encoder=encoder)
    found.tuning.keep(store)
    retriever = open_retriever(store, encoder=encoder)
    fit, check = searching._halves(questions, 1000)
    for half, those in (("fit", fit), ("check", check)):
        ranks = []
        for question in those:
            hits = retriever.search(question.question, k=20)
            sources = [hit.passage.source for hit in hits]
            gold = question.positive_ids[0]
            ranks.append(sources.index(gold) + 1 if gold in sources else math.inf)
        assert found.after[half]["recall@5"] == pytest.approx(
            sum(rank <= 5 for rank in ranks) / len(ranks)
        )
        assert found.after[half]["mrr@10"] == pytest.approx(
            sum(1 / rank for rank in ranks if rank <= 10) / len(ranks)
        )


def test_the_same_questions_find_the_same_numbers_in_any_order(
    store: Store, encoder: TrigramEncoder
) -> None:
    fill(store)
    questions = asked(spelt=False)
    first = tune(store, questions, encoder=encoder)
    again = tune(store, questions[::-1], encoder=encoder)
    assert again.tuning == first.tuning
    assert again.after == first.after


def test_what_only_fits_the_half_that_chose_is_not_taken(
    store: Store, encoder: TrigramEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store)
    fit = asked(spelt=False)[:12]
    check = asked(spelt=True)[12:24]
    # The half that checks is answered by words alone; trigrams of another half's passages mislead.
    wrong = [replace(one, question=f"{one.question} {misspelt('lanternglacier')}") for one in check]
    monkeypatch.setattr(searching, "_halves", lambda *_: (fit, wrong))
    start = TuneOptions(weights=HybridWeights(en=0.0))
    monkeypatch.setitem(searching.__dict__, "SHARES", (0.0, 1.0))
    found = tune(store, [*fit, *wrong], encoder=encoder, options=start)
    assert not found.held
    assert found.tuning.en is None
    assert found.after["check"]["mrr@10"] == found.before["check"]["mrr@10"]


def test_nothing_is_written(store: Store, encoder: TrigramEncoder) -> None:
    fill(store)
    tune(store, asked(spelt=True), encoder=encoder)
    assert store.settings == {}


def test_by_words_alone_no_encoder_is_needed(store: Store) -> None:
    fill(store)
    found = tune(store, asked(spelt=True), options=TuneOptions(mode="bm25"))
    assert found.tuning.temperature is None
    assert found.after["check"]["recall@1"] == 1.0
    assert [point.k for point in found.curve] == [1, 3, 5, 10, 20]
    assert all(point.candidates is None for point in found.curve)


def test_with_vectors_an_encoder_is_needed(store: Store) -> None:
    fill(store)
    with pytest.raises(UsageError, match=r"^the mode dense needs an encoder, received None$"):
        tune(store, asked(spelt=True), options=TuneOptions(mode="dense"))


def test_an_index_that_is_asked_for_is_taken_with_its_candidates(
    store: Store, encoder: TrigramEncoder
) -> None:
    fill(store)
    options = TuneOptions(mode="dense", index="codes")
    found = tune(store, asked(spelt=True), encoder=encoder, options=options)
    assert found.tuning.index == "codes"
    assert found.tuning.candidates == 200
    assert [point.candidates for point in found.curve] == [200] * 5 + [500, 1000, 2000]


def test_the_temperature_is_where_the_right_passages_are_likeliest(
    store: Store, encoder: TrigramEncoder
) -> None:
    fill(store)
    found = tune(store, asked(spelt=False), encoder=encoder)
    fit, _ = searching._halves(asked(spelt=False), 1000)
    retriever = open_retriever(store, encoder=encoder, tuning=found.tuning)
    k = found.tuning.k

    def likelihood(heat: float) -> float:
        total = 0.0
        for question in fit:
            hits = retriever.search(question.question, k=k or 5)
            weights = {hit.passage.source: math.exp(hit.score / heat) for hit in hits}
            gold = question.positive_ids[0]
            if gold in weights:
                total += math.log(weights[gold] / sum(weights.values()))
        return total

    best = found.tuning.temperature
    assert best is not None
    assert likelihood(best) == pytest.approx(max(map(likelihood, searching.TEMPERATURES)))


def test_the_smallest_k_that_finds_nearly_all_is_taken(
    store: Store, encoder: TrigramEncoder
) -> None:
    fill(store)
    assert tune(store, asked(spelt=True), encoder=encoder).tuning.k == 3


@pytest.mark.parametrize("count", [0, 19])
def test_too_few_questions_are_refused(store: Store, count: int) -> None:
    fill(store)
    useless = [Question("Why?"), Question("Who?", answers=("x",), unanswerable=True)]
    with pytest.raises(UsageError) as error:
        tune(store, [*asked(spelt=True)[:count], *useless], options=TuneOptions(mode="bm25"))
    assert error.value.message == (
        f"{count} questions of which a passage or an answer is known; fewer than 20 say nothing"
    )
    assert error.value.hint == (
        "give each question its answers, its context or positive_ids, and ask more"
    )


def test_of_many_questions_a_sample_is_used(store: Store) -> None:
    fill(store)
    found = tune(store, asked(spelt=True), options=TuneOptions(mode="bm25", most=24))
    assert found.questions == {"fit": 12, "check": 12, "left_out": 0}


PASSAGE = Passage("p1", "Salmon climb  the ladder.", "", "river", None, 0, 25)


@pytest.mark.parametrize(
    ("question", "gold"),
    [
        (Question("?", positive_ids=("p1",)), "p1"),
        (Question("?", positive_ids=("river", "x")), "river"),
        (Question("?", positive_ids=("x",), answers=("ladder",)), ""),
        (Question("?", context="In May. Salmon climb the ladder. Then rest."), "context"),
        (Question("?", context="the ladder", answers=("salmon",)), "answer"),
        (Question("?", context="Salmon climb the ladder. Rest.", answers=("rest",)), ""),
        (Question("?", context="Something else", answers=("salmon",)), ""),
        (Question("?", answers=("the ladder",)), "answer"),
        (Question("?", answers=("trout",)), ""),
    ],
)
def test_what_is_right_says_the_question(question: Question, gold: str) -> None:
    assert gold_in(question, PASSAGE) == gold
