"""Parts of the recipe by themselves: what a search finds, how thresholds are chosen, the losses."""

import json
import random
from pathlib import Path

import pytest
import torch

from consilience import Rag
from consilience.documents import Document
from consilience.encoding import load_encoder
from consilience.store import Store
from tests.recipes import conftest  # noqa: F401 - makes the recipe importable
from tests.recipes.open_sets import is_kept_back, write_open_sets
from tests.tiny import tiny_config, tiny_tokenizer, write_tiny_model

mixture = pytest.importorskip("mixture", exc_type=ImportError)
passages = pytest.importorskip("passages", exc_type=ImportError)
schedule = pytest.importorskip("schedule", exc_type=ImportError)
settings = pytest.importorskip("settings", exc_type=ImportError)
state = pytest.importorskip("state", exc_type=ImportError)
train = pytest.importorskip("train", exc_type=ImportError)

WORDS = tiny_tokenizer()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_open_sets(tmp_path_factory.mktemp("data"))


def test_what_is_kept_back_is_trained_on_nowhere(data: Path) -> None:
    kept = [row["context"] for row in mixture.kept_rows(data, "squad_v11")]
    assert len(kept) == 6
    assert all(map(is_kept_back, kept))
    told = [reading.passage for reading in mixture.readings(data)]
    told += [pair.passage for pair in mixture.pairs(data)]
    assert told
    assert not any(context in text for context in kept for text in told)


def test_questions_are_read_over_the_passages_that_they_name(data: Path) -> None:
    news, snippets = list(mixture.over_news(data)), list(mixture.over_snippets(data))
    assert [row["answers"][0] for row in news] == [str(n) for n in range(120, 132)]
    assert all(row["answers"][0] in row["context"] for row in news)
    assert [row["answers"] for row in snippets] == [["140"], ["142"], ["144"]]
    read = {(one.question, one.passage[one.start : one.end]) for one in mixture.readings(data)}
    assert {("121元的是什么？", "121"), ("Which number is 142?", "142")} <= read
    asked = {question for question, _ in read}
    assert asked.isdisjoint({"120元的是什么？", "Which number is 140?"})  # of the dev sets


def test_readings_are_cut_anew_each_time(data: Path) -> None:
    once, twice = mixture.readings(data), mixture.readings(data, times=2)
    assert twice[: len(once)] == once
    assert [one.question for one in twice[len(once) :]] != [one.question for one in once]
    assert {one.question for one in twice} == {one.question for one in once}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"tokens": {"pretrain": 4}}, "tokens must give each of pretrain, questions"),
        ({"tokens": dict.fromkeys(schedule.LEARNING, -1)}, "a number, 0 or more"),
        ({"tokens": dict.fromkeys(schedule.LEARNING, 0)}, "there is nothing to learn"),
        ({"parts": []}, "parts must be some of embeddings, retriever, reader, decoder, not []"),
        ({"parts": ["head"]}, "not ['head']"),
        ({"start": "nowhere"}, "start must be minilm, random or a model folder, not 'nowhere'"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(wrong: dict[str, object], told: str) -> None:
    right = {"tokens": dict.fromkeys(schedule.LEARNING, 5)}
    with pytest.raises(SystemExit) as caught:
        schedule.Schedule(**(right | wrong))
    assert told in str(caught.value)


def test_vectors_move_with_what_they_are_made_of() -> None:
    tokens = dict.fromkeys(schedule.LEARNING, 5)
    reading = {"tokens": tokens | {"joint": 0}, "parts": ("reader", "decoder")}
    assert not schedule.Schedule(**reading).vectors_move
    assert schedule.Schedule(**reading | {"tokens": tokens}).vectors_move
    assert schedule.Schedule(**reading | {"parts": ("embeddings",)}).vectors_move
    assert schedule.Schedule(**reading).stages == ("pretrain", "questions", "supervised", "tasks")


def test_paragraphs_that_are_kept_back_are_among_those_that_are_searched(data: Path) -> None:
    found = [document.text for document in passages.paragraphs(data, 30)]
    assert len(found) == len(set(found)) == 30
    assert all(row["context"] in found for row in mixture.kept_rows(data, "cmrc2018"))
    every = [document.text for document in passages.paragraphs(data, 1000)]
    assert len(every) == len(set(every)) > 30


def test_supports_are_those_of_what_a_search_finds(tmp_path: Path) -> None:
    rag = Rag.load(write_tiny_model(tmp_path / "model"))
    texts = ["the fee of the ward is 7", "the fee of the bank is 9", "the fee was 7 before"]
    row = {"question": "what is the fee of the ward", "context": texts[0], "answers": ["7"]}
    with Store.open(tmp_path / "store", encoder=rag.encoder) as store:
        store.add([Document(text, source=str(n)) for n, text in enumerate(texts)])
        found = settings.support(rag, store, row)
        assert found == pytest.approx(rag.ask(row["question"], store).confidence)
        (misled,) = settings._misled(rag, store, [row])
        store.remove("0", "2")  # its own paragraph, and the other one that holds the answer
        assert misled == pytest.approx(rag.ask(row["question"], store).confidence)
        assert misled != pytest.approx(found)
        store.remove("1")
        assert settings.support(rag, store, row) is None
        assert settings._misled(rag, store, [row]) == []


def test_a_search_finds_what_misleads_and_what_else_answers(tmp_path: Path) -> None:
    encoder = load_encoder(write_tiny_model(tmp_path / "model"))
    texts = ["the fee of the ward is 7", "the fee of the bank is 9", "what the fee 7 is"]
    with Store.open(tmp_path / "store", encoder=encoder) as store:
        store.add([Document(text, source=str(n)) for n, text in enumerate(texts)])
        asked = [mixture.Reading("what is the fee", "t", texts[0], 23, 24)]
        found = passages.found_readings(store, asked, most=5, rng=random.Random(1))
        hard = passages.hard_pairs(store, asked, each=2, most=5, rng=random.Random(1))
    answers = {one.passage: one.passage[max(0, one.start) : max(0, one.end)] for one in found}
    assert answers == {texts[1]: "", texts[2]: "7"}
    assert [(pair.passage, pair.wrong.strip()) for pair in hard] == [(f"t\n{texts[0]}", texts[1])]


def test_a_hard_negative_makes_the_loss_of_a_pair_larger() -> None:
    torch.manual_seed(0)
    model = train.Parts(tiny_config(WORDS)).eval()
    plain = [mixture.Pair("the fee", "the fee is 3"), mixture.Pair("the ward", "a ward")]
    hard = [mixture.Pair(one.question, one.passage, one.question) for one in plain]
    with torch.no_grad():
        losses = [
            float(train.pair_loss(model, train.tokenise_pairs(pairs, WORDS), WORDS))
            for pairs in (plain, hard)
        ]
    assert losses[1] > losses[0] + 0.01


def test_masked_words_teach_both_encoders_in_turn() -> None:
    model = train.Parts(tiny_config(WORDS))
    rows = train.tokenise_plain(["the fee of the ward is paid at the bank " * 3], WORDS)
    for step, (taught, other) in enumerate((("retriever", "reader"), ("reader", "retriever"))):
        model.zero_grad(set_to_none=True)
        torch.autograd.backward(train.masked_loss(model, rows, WORDS, step))
        name = "layer.0.intermediate.dense.weight"
        assert getattr(model, taught).get_parameter(name).grad is not None
        assert getattr(model, other).get_parameter(name).grad is None


def test_a_stream_that_skips_goes_on_where_it_was() -> None:
    def stream() -> object:
        return train.Stream([5, 9, 3, 7, 8, 2], 12, 1, 1.0, lambda *_: torch.zeros(()))

    whole, later = stream(), stream()
    batches = [whole.next() for _ in range(9)]  # type: ignore[attr-defined]
    later.skip(4)  # type: ignore[attr-defined]
    assert [later.next() for _ in range(5)] == batches[4:]  # type: ignore[attr-defined]


def test_a_state_is_kept_whole_and_counts_attempts(tmp_path: Path) -> None:
    plan = schedule.SCHEDULES["cpu"]
    told = state.State(tmp_path, plan)
    assert told.stage("pretrain") == {"state": "waiting"}
    told.begin("pretrain")
    again = state.State(tmp_path, plan)
    again.begin("pretrain")
    again.end("pretrain", ids=3)
    found = state.State(tmp_path, plan).stage("pretrain")
    assert (found["state"], found["attempts"], found["ids"]) == ("done", 2, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]
    with pytest.raises(SystemExit, match="was begun with another schedule"):
        state.State(tmp_path, schedule.SCHEDULES["gpu"])


def test_schedules_name_every_stage_and_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="tokens must give each of pretrain, questions"):
        schedule.Schedule(tokens={"pretrain": 3})
    with pytest.raises(SystemExit, match="no schedule 'tpu'"):
        schedule.schedule_named("tpu")
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"tokens": {}, "speed": 3}))
    with pytest.raises(SystemExit, match="unknown keys: speed"):
        schedule.schedule_named(str(path))
    sizes = schedule.Schedule(schedule.SCHEDULES["cpu"].tokens, {"hidden_size": 8}).config(50)
    assert (sizes.vocabulary_size, sizes.hidden_size) == (50, 8)
