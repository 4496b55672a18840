import pytest

from consilience.documents import Document
from consilience.errors import UsageError
from consilience.store import Store, Where


def test_conditions_as_they_are_typed() -> None:
    typed = ["source = a/", "contributor=x=y", "language=", "metadata.a.b=1", "source=c"]
    assert Where.parse(typed) == Where(("a/", "c"), ("x=y",), ("",), (("a.b", "1"),))
    assert not Where.parse([])
    assert Where.of({"language": "zh"}) == Where(languages=("zh",))


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("source", "a filter is FIELD=VALUE, received 'source'"),
        ("sauce=a", "there is no field 'sauce' to filter by"),
        ("metadata.=a", "there is no field 'metadata.' to filter by"),
    ],
)
def test_other_conditions_are_refused(condition: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        Where.parse([condition])
    assert error.value.message == message
    assert error.value.hint


def test_numbers_of_matching_passages_follow_the_commits(store: Store) -> None:
    store.add(Document("One.", source="a", contributor="x"), Document("Two.", source="b"))
    where = Where(contributors=("x",))
    (first,) = store.matching(where).tolist()
    assert store.passages([first])[first].source == "a"
    store.add(Document("Three.", source="c", contributor="x"))
    assert len(store.matching(where)) == 2
    store.remove("a")
    assert [p.source for p in store.passages(store.matching(where).tolist()).values()] == ["c"]
    assert len(store.matching(Where())) == 2


def test_settings_stay_with_the_store_and_move_no_index(store: Store) -> None:
    assert store.settings == {}
    before = store.sequence
    store.configure({"k1": 0.6, "weights": {"zh": 0.0}})
    with Store.open(store.path) as again:
        assert again.settings == {"k1": 0.6, "weights": {"zh": 0.0}}
    assert store.sequence == before
