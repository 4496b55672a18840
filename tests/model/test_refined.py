"""What was measured on a store, and what is done to a ranking, reach the answers of a model."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from consilience import Document, Rag, Store
from consilience.errors import UsageError
from consilience.model import AskOptions
from consilience.model.answering import Clock
from consilience.retrieval import Refinement, Tuning

QUESTION = "what is the fee of the card?"


@pytest.fixture(scope="module")
def rag(tiny_model_folder: Path) -> Rag:
    return Rag.load(tiny_model_folder)


@pytest.fixture
def store(tmp_path: Path, rag: Rag) -> Iterator[Store]:
    with Store.open(tmp_path / "store", encoder=rag.encoder) as opened:
        opened.add(
            [
                Document(f"The fee of the card is {n}. {'bank ' * n}", f"{n}.txt", contributor="x")
                for n in range(1, 8)
            ]
        )
        yield opened


def fresh(rag: Rag) -> Rag:
    return Rag(rag.parts)


def test_the_stores_k_counts_where_the_caller_names_none(rag: Rag, store: Store) -> None:
    assert len(fresh(rag).ask(QUESTION, store).posterior) == 5
    Tuning(k=3).keep(store)
    assert len(fresh(rag).ask(QUESTION, store).posterior) == 3
    assert len(fresh(rag).ask(QUESTION, store, AskOptions(k=2)).posterior) == 2


def ratio(rag: Rag, store: Store, mode: str) -> tuple[float, float]:
    """Log of the first two passages' priors over one another, and the distance of their scores."""
    options = AskOptions(k=2, mode=mode, fusion="fid", abstain=False)  # type: ignore[arg-type]
    one = fresh(rag)
    asked = one.look_up(QUESTION, store, options, Clock())
    prior = one.read(asked, options, Clock()).log_prior[0]
    return float(prior[0] - prior[1]), asked.hits[0].score - asked.hits[1].score


def test_the_stores_temperature_is_that_of_fused_scores(rag: Rag, store: Store) -> None:
    Tuning(temperature=0.5).keep(store)
    told, distance = ratio(rag, store, "hybrid")
    assert told == pytest.approx(distance / 0.5, rel=1e-3)
    told, distance = ratio(rag, store, "bm25")
    own = float(rag.model.temperature.detach())
    assert told == pytest.approx(distance / own, rel=1e-3)
    assert own != 0.5


def test_the_prior_is_the_models_where_none_was_measured(rag: Rag, store: Store) -> None:
    told, distance = ratio(rag, store, "hybrid")
    assert told == pytest.approx(distance / float(rag.model.temperature.detach()), rel=1e-3)
    assert math.isfinite(told)


def test_a_ranking_is_refined_before_it_is_summed(rag: Rag, store: Store) -> None:
    options = AskOptions(refinement=Refinement(rerank="maxsim", per_contributor=2), abstain=False)
    answer = fresh(rag).ask(QUESTION, store, options)
    assert len(answer.posterior) == 2


def test_a_refinement_has_a_retriever_of_its_own(rag: Rag, store: Store) -> None:
    plain = rag.retriever(store, "bm25")
    capped = rag.retriever(store, "bm25", Refinement(per_contributor=1))
    assert rag.retriever(store, "bm25") is plain
    assert rag.retriever(store, "bm25", Refinement(per_contributor=1)) is capped
    assert len(plain.search(QUESTION, k=5)) == 5
    assert len(capped.search(QUESTION, k=5)) == 1


def test_numbers_that_cannot_be_used_are_told_before_anything_is_searched(
    rag: Rag, store: Store
) -> None:
    store.configure({"retrieval": {"k1": "high"}})
    with pytest.raises(UsageError, match=r"k1 must be a number from 0 to 100: 'high'$"):
        fresh(rag).ask(QUESTION, store)
