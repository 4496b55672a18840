from pathlib import Path

import pytest

from consilience.documents import Document
from consilience.encoding import load_encoder
from consilience.errors import UsageError
from consilience.federation.making import made_questions
from consilience.questions import read_questions, write_questions
from consilience.store import Store
from tests.tiny import write_tiny_model

TEXTS = {
    "ferry": "The Red Ferry sails at dawn. At noon the red ferry rests. It was built in 1912.",
    "library": "借书证每年更换一次。图书馆周一闭馆。新的借书证在2024年3月启用，工本费5元。",
    "plain": "nothing here is worth a question",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


def store_of(place: Path, model: Path, *names: str) -> Store:
    store = Store.open(place, encoder=load_encoder(model))
    for name in names:
        store.add(Document(TEXTS[name], source=f"{name}.txt", title=name))
    return store


def test_questions_name_the_passage_that_holds_their_answer(tmp_path: Path, model: Path) -> None:
    with store_of(tmp_path / "store", model, *TEXTS) as store:
        found = made_questions(store, count=50, seed=0)
        for one in found:
            passage = store.passage(one.positive_ids[0])
            assert one.answers[0] in passage.text
            assert "___" in one.question
        assert {one.language for one in found} == {"en", "zh"}
        assert {store.passage(one.positive_ids[0]).source for one in found} == {
            "ferry.txt",
            "library.txt",
        }
    assert len({(one.question, one.answers) for one in found}) == len(found) > 2
    assert any(one.answers[0].lower() == "red ferry" for one in found)


def test_the_same_passages_and_seed_make_the_same_questions(tmp_path: Path, model: Path) -> None:
    with (
        store_of(tmp_path / "one", model, "ferry", "library") as one,
        store_of(tmp_path / "other", model, "library", "ferry") as other,
    ):
        assert made_questions(one, count=9, seed=3) == made_questions(other, count=9, seed=3)
        assert made_questions(one, count=9, seed=3) != made_questions(one, count=9, seed=4)


def test_every_passage_is_asked_before_any_is_asked_again(tmp_path: Path, model: Path) -> None:
    with store_of(tmp_path / "store", model, "ferry", "library") as store:
        found = made_questions(store, count=2, seed=1)
    assert len({one.positive_ids for one in found}) == 2


def test_they_are_read_back_as_they_were(tmp_path: Path, model: Path) -> None:
    with store_of(tmp_path / "store", model, "ferry", "library") as store:
        found = made_questions(store, count=5, seed=1)
    write_questions(tmp_path / "made.jsonl", found)
    assert read_questions(tmp_path / "made.jsonl") == found


@pytest.mark.parametrize(("names", "count"), [((), 0), (("plain",), 1)])
def test_nothing_to_ask(tmp_path: Path, model: Path, names: tuple[str, ...], count: int) -> None:
    with store_of(tmp_path / "store", model, *names) as store:
        told = f"no question can be made from the {count} passages"
        with pytest.raises(UsageError, match=told) as caught:
            made_questions(store, count=5, seed=0)
    assert "data.train" in caught.value.hint
