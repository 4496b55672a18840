"""The numbers of a search as a value: what is kept, what is refused, what they reach."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilience.errors import UsageError
from consilience.retrieval import HybridWeights, Tuning, open_retriever
from consilience.store import Store
from tests.retrieval.contract import ASK
from tests.retrieval.corpus import fill
from tests.retrieval.encoders import TrigramEncoder

shares = st.none() | st.floats(0, 1)
tunings = st.builds(
    Tuning,
    k1=st.floats(0, 100),
    b=st.floats(0, 1),
    title=st.floats(0, 100),
    zh=shares,
    en=shares,
    other=shares,
    temperature=st.none() | st.floats(1e-4, 1e4),
    k=st.none() | st.integers(1, 1000),
    index=st.sampled_from(["auto", "exact", "codes", "ivf", "hnsw"]),
    candidates=st.integers(1, 100_000),
)


@given(tunings)
def test_what_is_written_is_read_again(tuning: Tuning) -> None:
    assert Tuning.parse(tuning.to_dict()) == tuning


def test_a_store_that_was_not_measured_has_the_defaults(store: Store) -> None:
    assert Tuning.of(store) == Tuning()
    assert Tuning().to_dict().keys() == {"k1", "b", "title", "index", "candidates"}


def test_a_store_keeps_its_numbers_beside_other_settings(store: Store) -> None:
    store.configure({"elsewhere": 1})
    tuning = Tuning(k1=0.9, en=0.3, k=7)
    tuning.keep(store)
    with Store.open(store.path) as again:
        assert Tuning.of(again) == tuning
        assert again.settings["elsewhere"] == 1


def test_every_mistake_is_named_at_once(store: Store) -> None:
    values = {"k1": -1, "b": "x", "k": 2.5, "zh": True, "index": "magic", "k2": 3, "title": None}
    store.configure({"retrieval": values})
    with pytest.raises(UsageError) as error:
        Tuning.of(store)
    names = ", ".join(field.name for field in fields(Tuning))
    assert error.value.message == (
        f"numbers of a search that cannot be used: k2 is unknown, allowed: {names}; "
        "k1 must be a number from 0 to 100: -1; b must be a number from 0 to 1: 'x'; "
        "title must be a number from 0 to 100: None; zh must be a number from 0 to 1: True; "
        "k must be a whole number from 1 to 1000: 2.5; "
        "index must be one of auto, exact, codes, ivf, hnsw: 'magic'"
    )
    assert error.value.hint == (
        "consilience search --tune QUESTIONS writes new ones into the knowledge base"
    )


@pytest.mark.parametrize("values", [[], "k1=2", 3])
def test_settings_that_are_no_names_with_values_are_refused(store: Store, values: object) -> None:
    store.configure({"retrieval": values})
    with pytest.raises(UsageError, match="they must be names with values, received"):
        open_retriever(store, mode="bm25")


@pytest.mark.parametrize(
    "values", [{"k1": float("nan")}, {"b": 1.01}, {"temperature": 0}, {"k": 0}, {"index": []}]
)
def test_numbers_out_of_bounds_are_refused_however_they_come(values: dict[str, object]) -> None:
    (name,) = values
    for make in (Tuning.parse, lambda given: Tuning(**given)):
        with pytest.raises(UsageError, match=f"cannot be used: {name} must be"):
            make(values)


def test_a_measured_share_takes_the_place_of_the_models() -> None:
    model = HybridWeights(zh=0.1, en=0.2, other=0.3)
    assert Tuning().weights(model) == model
    assert Tuning(zh=0.0, other=1.0).weights(model) == HybridWeights(zh=0.0, en=0.2, other=1.0)


def test_k_is_the_callers_then_the_stores_then_five() -> None:
    assert Tuning().proposed(None) == 5
    assert Tuning(k=9).proposed(None) == 9
    assert Tuning(k=9).proposed(2) == 2


def test_the_shares_of_the_store_reach_its_searches(store: Store) -> None:
    fill(store)
    encoder = TrigramEncoder()
    Tuning(en=0.0).keep(store)
    open_retriever(store, encoder=encoder, weights=HybridWeights(en=1.0)).search(ASK, k=1)
    assert encoder.questions == []
    open_retriever(store, encoder=encoder, tuning=Tuning(en=1.0)).search(ASK, k=1)
    assert encoder.questions == [ASK]


def test_a_retriever_keeps_the_numbers_that_it_was_opened_with(store: Store) -> None:
    fill(store)
    encoder = TrigramEncoder()
    retriever = open_retriever(store, encoder=encoder)
    Tuning(en=0.0).keep(store)
    retriever.search(ASK, k=1)
    assert encoder.questions == [ASK]
