"""Questions that are answered together have the answers that they have alone."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consilience import Document, Rag, Store
from consilience.errors import UsageError
from consilience.model import Answer, AskOptions, Piece
from consilience.model.answering import Clock
from consilience.model.cohort import Cohort, Member, company
from consilience.model.fusion import Fusion
from tests.model.small import worded_gpt2

DOCUMENTS = [
    Document("The fee of the card is 25.50. The bank is in the ward.", "card.txt", "Card"),
    Document("门诊的时间是上午9点。费用是100。", "门诊.txt", "门诊"),
    Document("Visit hours of the ward: 10 to 12. " * 5, "ward.txt", "Ward"),
    Document("The exam is in the bank.", "exam.txt", "Exam"),
]
QUESTIONS = ["what is the fee of the card?", "门诊的时间？", "when is the exam in the bank?"]


@pytest.fixture(scope="module")
def rag(tiny_model_folder: Path) -> Rag:
    return Rag.load(tiny_model_folder)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, rag: Rag) -> Iterator[Store]:
    with Store.open(tmp_path_factory.mktemp("store"), encoder=rag.encoder) as opened:
        opened.add(*DOCUMENTS)
        yield opened


def members(rag: Rag, store: Store, options: AskOptions) -> list[Member]:
    found = []
    for question in QUESTIONS:
        clock = Clock()
        asked = rag.look_up(question, store, options, clock)
        found.append(Member(asked, rag.read(asked, options, clock), clock))
    return found


def together(rag: Rag, store: Store, options: AskOptions) -> list[list[Piece]]:
    cohort = Cohort(members(rag, store, options), options.decoding(rag.settings.decoding))
    pieces: list[list[Piece]] = [[] for _ in QUESTIONS]
    while cohort.open:
        for place, written in cohort.step():
            piece = cohort.piece(place, written)
            if piece is not None:
                pieces[place].append(piece)
    return pieces


def same(found: Answer | None, expected: Answer) -> None:
    """Equal but for the time and the last digits."""
    assert found is not None
    assert found.text == expected.text
    assert [one.text for one in found.tokens] == [one.text for one in expected.tokens]
    assert found.posterior == pytest.approx(expected.posterior, abs=1e-5)
    assert found.confidence == pytest.approx(expected.confidence, abs=1e-5)
    assert found.log_likelihood == pytest.approx(expected.log_likelihood, abs=1e-4)
    assert [one.text for one in found.alternatives] == [one.text for one in expected.alternatives]
    cited = [(one.passage.id, one.quotes) for one in found.citations]
    assert cited == [(one.passage.id, one.quotes) for one in expected.citations]
    for one, other in zip(found.tokens, expected.tokens, strict=True):
        assert one.posterior == pytest.approx(other.posterior, abs=1e-5)


WAYS: list[dict[str, Any]] = [
    {"fusion": "sequence"},
    {"fusion": "token", "beams": 1},
    {"fusion": "average"},
    {"fusion": "fid"},
    {"fusion": "concat"},
    {"sample": True, "seed": 3},
    {"returned": 3},
]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_together_as_alone(rag: Rag, store: Store, way: dict[str, Any]) -> None:
    options = AskOptions(k=3, max_new_tokens=6, mode="dense", **way)
    for question, pieces in zip(QUESTIONS, together(rag, store, options), strict=True):
        same(pieces[-1].answer, rag.ask(question, store, options))
        if options.returned == 1:
            streamed = list(rag.stream(question, store, options))
            assert [one.text for one in pieces] == [one.text for one in streamed]
            for one, other in zip(pieces, streamed, strict=True):
                assert one.posterior == pytest.approx(other.posterior, abs=1e-5)


def test_a_decoder_alone_does_so_too(store: Store) -> None:
    rag = Rag.of(worded_gpt2())
    options = AskOptions(k=1, max_new_tokens=4, beams=2)
    for question, pieces in zip(QUESTIONS, together(rag, store, options), strict=True):
        same(pieces[-1].answer, rag.ask(question, store, options))


def test_of_an_answer_that_will_be_withheld_nothing_is_shown(rag: Rag, store: Store) -> None:
    thresholds = {"en": 1.1}
    strict = Rag(replace(rag.parts, settings=replace(rag.settings, support_thresholds=thresholds)))
    options = AskOptions(k=3, max_new_tokens=6, mode="dense", beams=1)
    first, chinese, last = together(strict, store, options)
    for withheld in (first, last):
        (only,) = withheld
        assert only.answer is not None
        assert only.answer.abstained
    assert len(chinese) > 1


def test_company_is_what_one_search_can_serve(rag: Rag, store: Store) -> None:
    options = AskOptions(k=3)
    clock, generator = Clock(), rag.model.generator
    asked = rag.look_up(QUESTIONS[0], store, replace(options, mode="dense"), clock)
    alike = company(asked, options, generator)
    assert alike is not None
    others = rag.look_up(QUESTIONS[2], store, AskOptions(k=3, mode="dense"), clock)
    assert company(others, AskOptions(k=9, abstain=False, mode="dense"), generator) == alike
    fewer = replace(asked, hits=asked.hits[:2])
    assert company(fewer, options, generator) != alike
    different: list[dict[str, Any]] = [
        {"fusion": "token"},
        {"beams": 2},
        {"max_new_tokens": 7},
        {"sample": True},
    ]
    for one in different:
        assert company(asked, AskOptions(k=3, **one), generator) != alike
    attention: Fusion = "attention"
    assert company(asked, AskOptions(k=3, fusion=attention), generator) is None


def test_a_search_that_knows_its_answer_last_is_refused(rag: Rag, store: Store) -> None:
    options = AskOptions(k=3, search="thorough", mode="dense")
    with pytest.raises(UsageError, match="knows no token before it knows the answer"):
        Cohort(members(rag, store, options), options.decoding())
