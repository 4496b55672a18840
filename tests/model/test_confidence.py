"""What the confidence in an answer is made of, and where it comes from."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from consilience import Document, Rag, Store
from consilience.encoding.folder import open_folder
from consilience.errors import DamagedError
from consilience.model import AskOptions
from consilience.model.confidence import NEAR, SUPPORT, Confidence
from tests.tiny import write_tiny_model

WEIGHED = Confidence(bias=-0.3, support=0.7, likelihood=1.5)


def test_it_is_the_formula() -> None:
    odds, mean = math.log(0.8 / 0.2), -2.0 / 4
    wanted = 1 / (1 + math.exp(-(-0.3 + 0.7 * odds + 1.5 * mean)))
    assert WEIGHED.of(0.8, -2.0, 4) == pytest.approx(wanted)


def test_without_weights_it_is_the_support() -> None:
    assert Confidence().of(0.123456789, -40.0, 3) == 0.123456789
    assert SUPPORT.to_settings() == {}
    assert Confidence.of_settings({}) == SUPPORT


@pytest.mark.parametrize("support", [0.0, NEAR / 10, 1.0 - NEAR / 10, 1.0])
@pytest.mark.parametrize("log_likelihood", [0.0, -1e9])
def test_the_ends_are_numbers(support: float, log_likelihood: float) -> None:
    assert 0.0 <= WEIGHED.of(support, log_likelihood, 1) <= 1.0


def test_likelier_and_better_supported_is_surer() -> None:
    assert WEIGHED.of(0.6, -1.0, 3) > WEIGHED.of(0.5, -1.0, 3) > WEIGHED.of(0.5, -1.1, 3)
    assert WEIGHED.of(0.5, -1.0, 6) > WEIGHED.of(0.5, -1.0, 3)


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(DamagedError, match="has suport, known are bias, likelihood, support"):
        Confidence.of_settings({"suport": 1.0})


def test_a_model_keeps_it_and_answers_by_it(tmp_path: Path) -> None:
    plain = Rag.load(write_tiny_model(tmp_path / "start"))
    rag = Rag(replace(plain.parts, settings=replace(plain.settings, confidence=WEIGHED)))
    rag.save(tmp_path / "kept")
    assert open_folder(tmp_path / "kept").config.confidence == WEIGHED.to_settings()
    again = Rag.load(tmp_path / "kept")
    options = AskOptions(max_new_tokens=6, abstain=False)
    with Store.open(tmp_path / "store", encoder=plain.encoder) as store:
        store.add(Document("the fee of the card is nine", source="card.txt", title=""))
        before, after = (one.ask("what is the fee", store, options) for one in (plain, again))
        *_, last = again.stream("what is the fee", store, options)
    assert before.confidence == before.support == after.support
    tokens = len(after.tokens) + 1
    wanted = [
        WEIGHED.of(after.support, after.log_likelihood or 0.0, n) for n in (tokens - 1, tokens)
    ]
    assert after.confidence in wanted  # the end was written, or the answer was cut
    assert last.answer is not None
    assert last.answer.confidence == pytest.approx(after.confidence, abs=1e-6)
    found = after.to_dict()
    assert (found["support"], found["log_likelihood"]) == (after.support, after.log_likelihood)


def test_the_support_alone_says_what_is_withheld(tmp_path: Path) -> None:
    plain = Rag.load(write_tiny_model(tmp_path / "start"))
    doubting = replace(plain.settings, confidence=Confidence(bias=-50.0))
    rag = Rag(replace(plain.parts, settings=doubting))
    with Store.open(tmp_path / "store", encoder=plain.encoder) as store:
        store.add(Document("the fee of the card is nine", source="card.txt", title=""))
        answer = rag.ask("what is the fee", store, AskOptions(max_new_tokens=4))
    assert answer.confidence < 1e-9
    assert not answer.abstained
