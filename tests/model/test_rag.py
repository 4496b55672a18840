"""The way of a question through store, retriever, sum and citations, with a random tiny model."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from consilience import Document, Rag, Store
from consilience.errors import FingerprintError, MissingError, UsageError
from consilience.model import AskOptions, Turn
from consilience.model.rag import standalone
from tests.tiny import write_tiny_model

DOCUMENTS = [
    Document("The fee of the card is 25.50. The bank is in the ward.", "card.txt", "Card"),
    Document("门诊的时间是上午9点。费用是100。", "门诊.txt", "门诊"),
    Document("Visit hours of the ward: 10 to 12.", "ward.txt", "Ward", access=("staff",)),
]


@pytest.fixture(scope="module")
def rag(tiny_model_folder: Path) -> Rag:
    return Rag.load(tiny_model_folder)


@pytest.fixture
def store(tmp_path: Path, rag: Rag) -> Iterator[Store]:
    with Store.open(tmp_path / "store", encoder=rag.encoder) as opened:
        opened.add(*DOCUMENTS)
        yield opened


@pytest.mark.parametrize("fusion", ["sequence", "token"])
@pytest.mark.parametrize("beams", [1, 3])
def test_an_answer_carries_its_evidence(rag: Rag, store: Store, fusion: str, beams: int) -> None:
    options = AskOptions(fusion=fusion, beams=beams, max_new_tokens=6)  # type: ignore[arg-type]
    answer = rag.ask("what is the fee of the card?", store, options)
    assert not answer.abstained
    assert answer.citations
    assert sum(answer.posterior.values()) == pytest.approx(1.0, abs=1e-4)
    for citation in answer.citations:
        text = store.document(citation.passage.source).text
        assert text[citation.passage.start : citation.passage.end] == citation.passage.text
        for quote in citation.quotes:
            assert text[quote.start : quote.end] == quote.text
    for token in answer.tokens:
        assert sum(token.posterior.values()) == pytest.approx(1.0, abs=1e-3)
    shares = [citation.posterior for citation in answer.citations]
    assert shares == sorted(shares, reverse=True)


def test_the_json_form_has_the_keys_of_the_contract(rag: Rag, store: Store) -> None:
    answer = rag.ask("门诊时间", store, AskOptions(max_new_tokens=4))
    found = json.loads(json.dumps(answer.to_dict(explain=True)))
    assert found.keys() >= {
        "answer",
        "abstained",
        "confidence",
        "citations",
        "tokens",
        "timings_ms",
    }
    assert found["citations"][0].keys() >= {
        "passage_id",
        "source",
        "page",
        "start",
        "end",
        "text",
        "posterior",
    }
    assert "tokens" not in answer.to_dict()
    assert found["timings_ms"]["total"] > 0


def test_without_support_nothing_is_answered(rag: Rag, store: Store) -> None:
    strict = Rag(
        replace(rag.config, support_thresholds={"en": 1.1}),
        encoder=rag.encoder,
        model=rag.model,
        folder=rag._folder,
    )
    answer = strict.ask("what is the fee?", store)
    assert answer.abstained
    assert answer.text == ""
    assert answer.citations == ()
    assert answer.posterior
    assert not strict.ask("what is the fee?", store, AskOptions(abstain=False)).abstained
    # The threshold is that of the question's language.
    assert not strict.ask("门诊时间是什么？", store).abstained


def test_an_empty_store_abstains(rag: Rag, tmp_path: Path) -> None:
    with Store.open(tmp_path / "empty", encoder=rag.encoder) as empty:
        answer = rag.ask("what is the fee?", empty)
    assert answer.abstained
    assert answer.confidence == 0.0


def test_a_removed_document_answers_no_more(rag: Rag, store: Store) -> None:
    rag.ask("what is the fee of the card?", store)
    store.remove("card.txt")
    answer = rag.ask("what is the fee of the card?", store)
    assert "card.txt" not in {citation.passage.source for citation in answer.citations}


def test_hidden_passages_take_no_part(rag: Rag, store: Store) -> None:
    hidden = {p.id for p in store.passages([1, 2, 3, 4]).values() if p.access}
    assert hidden
    visitor = rag.ask("visit hours of the ward", store, AskOptions(access=()))
    assert not hidden & set(visitor.posterior)
    staff = rag.ask("visit hours of the ward", store, AskOptions(access=("staff",)))
    assert hidden & set(staff.posterior)


def test_follow_up_questions_carry_what_they_follow() -> None:
    turns = [Turn("old", "older"), Turn("What is the fee?", "25.50")]
    assert standalone("And for two?", turns) == "What is the fee? 25.50 And for two?"
    assert standalone("And for two?", ()) == "And for two?"


def test_a_saved_model_answers_alike(rag: Rag, store: Store, tmp_path: Path) -> None:
    rag.save(tmp_path / "copy")
    copy = Rag.load(tmp_path / "copy")
    question = "what is the fee of the card?"
    assert copy.ask(question, store).text == rag.ask(question, store).text


def test_what_was_learned_is_saved(store: Store, tiny_model_folder: Path, tmp_path: Path) -> None:
    learned = Rag.load(tiny_model_folder)
    with torch.no_grad():
        learned.model.generator.decoder.bias.add_(3.0)
        learned.model.log_temperature.fill_(-1.0)
        learned.encoder.layers.layer[0].output.dense.weight.mul_(1.5)
    learned.save(tmp_path / "learned")
    loaded = Rag.load(tmp_path / "learned")
    torch.testing.assert_close(
        loaded.model.generator.decoder.bias, learned.model.generator.decoder.bias
    )
    assert loaded.config.prior_temperature == pytest.approx(math.exp(-1.0))
    assert loaded.encoder.fingerprint != learned.encoder.fingerprint


def test_retriever_and_generator_share_their_embeddings(rag: Rag) -> None:
    assert rag.model.generator.embeddings is rag.encoder.embeddings


def test_a_model_is_not_saved_over_itself(rag: Rag, tiny_model_folder: Path) -> None:
    with pytest.raises(UsageError, match="the model was loaded from"):
        rag.save(tiny_model_folder)


def test_a_store_of_another_encoder_is_refused(store: Store, tmp_path: Path) -> None:
    other = Rag.load(write_tiny_model(tmp_path / "other", seed=7))
    with pytest.raises(FingerprintError):
        other.ask("what is the fee?", store)


@pytest.mark.parametrize("question", ["", "  \n\t"])
def test_an_empty_question_is_refused(rag: Rag, store: Store, question: str) -> None:
    with pytest.raises(UsageError, match="the question is empty"):
        rag.ask(question, store)


def test_an_overlong_question_is_refused(rag: Rag, store: Store) -> None:
    with pytest.raises(UsageError, match="the question has 5000 characters; 4000 are read"):
        rag.ask("a" * 5000, store)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no model folder"):
        Rag.load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["k", "beams", "max_new_tokens"])
def test_numbers_below_one_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} must be at least 1, received 0"):
        AskOptions(**{name: 0})  # type: ignore[arg-type]


def test_an_unknown_fusion_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown fusion 'fid'"):
        AskOptions(fusion="fid")  # type: ignore[arg-type]
