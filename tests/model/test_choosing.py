"""Choosing among given answers, against the sum written out."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from consilience import Document, Rag, Store
from consilience.errors import UsageError
from consilience.generation.endpoint import Endpoint
from consilience.generation.remote import RemoteGenerator
from consilience.model import AskOptions
from consilience.model.answering import Clock
from consilience.model.fusion import Fusion, log_likelihood

QUESTION = "what is the fee of the card?"
AMONG = ("The Bank", "25.50", "the ward 12")


@pytest.fixture(scope="module")
def rag(tiny_model_folder: Path) -> Rag:
    return Rag.load(tiny_model_folder)


@pytest.fixture
def store(tmp_path: Path, rag: Rag) -> Iterator[Store]:
    with Store.open(tmp_path / "store", encoder=rag.encoder) as opened:
        opened.add(
            Document("The fee of the card is 25.50.", "card.txt"),
            Document("The bank is in the ward.", "bank.txt"),
        )
        yield opened


@pytest.mark.parametrize("fusion", ["sequence", "token", "average"])
def test_the_likeliest_under_the_sum_is_given(rag: Rag, store: Store, fusion: Fusion) -> None:
    options = AskOptions(k=2, fusion=fusion, abstain=False, among=AMONG)
    answer = rag.ask(QUESTION, store, options)
    told = {one.text: one.log_likelihood for one in answer.alternatives}
    expected = {text: written_out(rag, store, text, options) for text in AMONG}
    assert answer.text == max(expected, key=lambda text: expected[text])
    assert told.keys() == expected.keys() - {answer.text}
    assert list(told.values()) == sorted(told.values(), reverse=True)
    for text, value in told.items():
        assert value == pytest.approx(expected[text], abs=1e-4)
    assert sum(answer.posterior.values()) == pytest.approx(1.0, abs=1e-4)
    assert answer.citations


def written_out(rag: Rag, store: Store, text: str, options: AskOptions) -> float:
    """Log p(y | x) from a score of every row, given that there is an answer."""
    clock = Clock()
    reading = rag.read(rag.look_up(QUESTION, store, options, clock), options, clock)
    generator = rag.model.generator
    ids = torch.tensor([generator.answer_ids(text)]).expand(2, -1)
    given = generator.score(reading.memory, ids)
    none = generator.score(reading.memory, torch.full((2, 1), generator.none))[:, 0]
    there = (-none.exp()).log1p()
    given = given.clone()
    given[:, 0] -= there
    weights = (reading.log_weights[0] + there).log_softmax(-1)
    mask = torch.ones(1, ids.shape[1], dtype=torch.bool)
    named = options.decoding().fusion
    return float(log_likelihood(weights[None], given[None], mask, fusion=named))


@pytest.mark.parametrize("fusion", ["fid", "concat"])
def test_passages_that_are_read_together_choose_too(rag: Rag, store: Store, fusion: Fusion) -> None:
    options = AskOptions(k=2, fusion=fusion, abstain=False, among=AMONG)
    answer = rag.ask(QUESTION, store, options)
    assert {answer.text, *(one.text for one in answer.alternatives)} == set(AMONG)
    assert sum(answer.posterior.values()) == pytest.approx(1.0, abs=1e-4)


def test_a_stream_of_a_choice_is_its_whole(rag: Rag, store: Store) -> None:
    options = AskOptions(k=2, abstain=False, among=AMONG)
    pieces = list(rag.stream(QUESTION, store, options))
    assert [one.text for one in pieces] == [rag.ask(QUESTION, store, options).text]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"among": ("yes",)}, "among needs at least two answers, no two alike, received ['yes']"),
        (
            {"among": ("a", "b", "a")},
            "among needs at least two answers, no two alike, received ['a', 'b', 'a']",
        ),
        (
            {"among": ("a", "b"), "sample": True},
            "among chooses and writes nothing, so sample, search, stop and quote have no meaning",
        ),
    ],
)
def test_what_cannot_be_chosen_among_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as error:
        AskOptions(**wrong)  # type: ignore[arg-type]
    assert error.value.message == message


@pytest.mark.parametrize(
    ("among", "message"),
    [
        (("Card", "card"), "the answers 'Card' and 'card' are the same to this model"),
        (("card", "\u200b"), "the model knows no word of the answer '\\u200b'"),
    ],
)
def test_answers_that_the_model_cannot_tell_are_refused(
    rag: Rag, store: Store, among: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError) as error:
        rag.ask(QUESTION, store, AskOptions(among=among))
    assert error.value.message == message


def test_a_model_behind_an_endpoint_does_not_choose(store: Store) -> None:
    endpoint = Endpoint("http://127.0.0.1:9")
    far = Rag.of(RemoteGenerator(endpoint, "none"))
    with pytest.raises(UsageError, match=r"^choosing among given answers needs a model that runs"):
        far.ask(QUESTION, store, AskOptions(among=AMONG))
