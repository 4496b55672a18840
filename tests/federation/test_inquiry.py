"""One answer out of the stores of several parties is the answer of one store with all of it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch

from consilience.errors import RemoteError, UsageError
from consilience.federation.contracts import Party, Reply, Wait
from consilience.federation.federated_answer import FederatedAnswer
from consilience.federation.inquiry import InquiryOptions, inquire
from consilience.federation.local import LocalParties
from consilience.federation.messages import Message
from consilience.model import Answer, AskOptions, Rag
from consilience.store import Store
from tests.federation.asked import (
    DOCUMENTS,
    QUESTIONS,
    Town,
    fill,
    write_sharp_model,
    write_town,
)
from tests.federation.fakes import Bent

SHORT = InquiryOptions(max_new_tokens=3)
LISTED = sorted(DOCUMENTS)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    return write_town(tmp_path_factory.mktemp("town"))


@pytest.fixture(scope="module", params=[0, 2], ids=["flat", "sharp"])
def any_town(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Town:
    return write_town(tmp_path_factory.mktemp("any"), request.param)


@pytest.fixture(scope="module")
def rag(town: Town) -> Rag:
    return Rag.load(town.model)


@contextmanager
def parties_of(*parties: Party) -> Iterator[LocalParties]:
    way = LocalParties(parties, at_once=True)
    try:
        yield way
    finally:
        way.close()


def ask(
    town: Town, rag: Rag, question: str, *parties: Party, options: InquiryOptions = SHORT
) -> FederatedAnswer:
    chosen = parties or [town.party(name) for name in LISTED]
    with parties_of(*chosen) as way:
        return inquire(question, rag, way, options)


def alone(rag: Rag, place: Path, question: str, options: InquiryOptions = SHORT) -> Answer:
    """What one store answers."""
    how = AskOptions(
        k=options.k,
        mode="dense",
        search="thorough",
        beams=options.beams,
        max_new_tokens=options.max_new_tokens,
    )
    with Store.open(place, create=False) as store:
        return rag.ask(question, store, how)


def shares_by_party(answer: Answer, owners: Mapping[str, str]) -> dict[str, float]:
    found = dict.fromkeys(LISTED, 0.0)
    for passage, share in answer.posterior.items():
        found[owners[passage]] += share
    return found


def owners_of(place: Path) -> dict[str, str]:
    with Store.open(place, create=False) as store, store.changes(0) as changes:
        numbers = [row.number for batch in changes.added for row in batch]
        passages = store.passages(numbers).values()
    return {one.id: one.source.split("-")[0] for one in passages}


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("k", [5, 2, 50])
def test_the_answer_is_that_of_one_store(any_town: Town, question: str, k: int) -> None:
    town, rag, options = any_town, Rag.load(any_town.model), replace(SHORT, k=k)
    parties = [town.party(name, "source") for name in LISTED]
    found = ask(town, rag, question, *parties, options=options)
    wanted = alone(rag, town.whole, question, options)
    assert found.text == wanted.text
    assert found.log_likelihood == pytest.approx(wanted.log_likelihood, abs=1e-5)
    assert found.support == pytest.approx(wanted.support, abs=1e-5)
    assert found.confidence == pytest.approx(wanted.confidence, abs=1e-5)
    assert found.confidence != pytest.approx(found.support, abs=1e-3)
    assert not found.abstained
    shares = {one.name: one.posterior for one in found.parties}
    assert shares == pytest.approx(shares_by_party(wanted, owners_of(town.whole)), abs=1e-5)
    cited = {one.evidence.source: one.posterior for one in found.sources}
    assert cited == pytest.approx(
        {one.passage.source: one.posterior for one in wanted.citations}, abs=1e-5
    )
    assert sum(one.passages for one in found.parties) == min(k, 9)
    assert sum(one.prior for one in found.parties) == pytest.approx(1)


def test_questions_have_different_answers_from_several_parties(town: Town, rag: Rag) -> None:
    found = [ask(town, rag, question) for question in QUESTIONS]
    assert len({one.text for one in found}) > 1
    assert len({max(one.parties, key=lambda p: p.posterior).name for one in found}) > 1


def test_too_little_support_is_too_little_in_both(tmp_path: Path) -> None:
    town = write_town(tmp_path, least=2.0)
    rag = Rag.load(town.model)
    found = ask(town, rag, QUESTIONS[0])
    wanted = alone(rag, town.whole, QUESTIONS[0])
    assert (found.abstained, found.text, found.sources) == (True, "", ())
    assert wanted.abstained
    assert found.confidence == pytest.approx(wanted.confidence, abs=1e-5)
    assert "show" not in found.timings_ms


CANARY = "zylberstein"


def canary_town(town: Town, folder: Path) -> Town:
    """A party whose passages hold what must not leave, each before and after an answer."""
    texts = tuple(f"{CANARY} {text} {CANARY} has it" for text in DOCUMENTS["bank"])
    fill(folder / "bank", town.model, CANARY, texts)
    return replace(town, folder=folder)


@pytest.mark.parametrize("question", QUESTIONS)
def test_nothing_of_a_passage_leaves_but_proposed_answers(
    town: Town, rag: Rag, question: str, tmp_path: Path
) -> None:
    said: list[Message] = []

    def tap(_: bytes, reply: bytes) -> bytes:
        said.append(Message.unpack(reply))
        assert CANARY.encode() not in reply
        return reply

    there = canary_town(town, tmp_path)
    party = Bent(there.party("bank"), tap)
    answer = ask(there, rag, question, party)
    assert [one.kind for one in said] == ["seen", "proposed", "weighed", "shown"]
    assert [sorted(one.tensors) for one in said] == [
        ["scores"],
        ["answers"],
        ["log_likelihoods", "support"],
        ["shares"],
    ]
    assert [dict(one.content) for one in said[:3]] == [{}, {}, {}]
    empty = {"source": None, "title": None, "page": None, "text": None, "quotes": []}
    assert all(one == empty for one in said[3].content["evidence"])
    generator = rag.model.generator
    proposed = {
        "".join(generator.decode([i for i in row if i >= 0 and i != generator.end]).split())
        for row in said[1].tensors["answers"].tolist()
    }
    assert "".join(answer.text.lower().split()) in proposed
    if said[3].content["spelled"] is not None:
        assert "".join(said[3].content["spelled"][1].lower().split()) in proposed


def test_sources_and_sentences_are_shown_as_far_as_each_tells(
    town: Town, rag: Rag, tmp_path: Path
) -> None:
    levels = dict(zip(LISTED, ("source", "answer", "sentence"), strict=True))
    parties = [town.party(name, tells) for name, tells in levels.items()]
    options = InquiryOptions(max_new_tokens=1, k=9)
    seen = set()
    for question in QUESTIONS:
        for one in ask(town, rag, question, *parties, options=options).sources:
            seen.add(one.party)
            shown, tells = one.evidence, levels[one.party]
            assert (shown.source is not None) == (tells != "answer")
            assert tells == "sentence" or (shown.text, shown.quotes) == (None, ())
    assert len(seen) > 1


def test_a_sentence_holds_the_answer_and_nothing_around_it(tmp_path: Path) -> None:
    town = write_town(tmp_path)
    rag, options = Rag.load(town.model), InquiryOptions(max_new_tokens=1, k=9)
    quoted = []
    for question in QUESTIONS:
        parties = [town.party(name, "sentence") for name in LISTED]
        found = ask(town, rag, question, *parties, options=options)
        wanted = alone(rag, town.whole, question, options)
        cited = {one.passage.source: one for one in wanted.citations}
        for one in found.sources:
            assert one.evidence.quotes == cited[one.evidence.source].quotes
            if one.evidence.quotes:
                quoted.append(one)
    assert quoted
    for one in quoted:
        name, number = one.evidence.source.removesuffix(".txt").split("-")
        whole = DOCUMENTS[name][int(number)]
        assert one.evidence.text in whole
        assert all(quote.text in one.evidence.text for quote in one.evidence.quotes)
    assert any(len(one.evidence.text) < 30 for one in quoted)


# Parties that do not answer as they should.


def without(town: Town, rag: Rag, question: str, lost: str) -> FederatedAnswer:
    return ask(town, rag, question, *(town.party(name) for name in LISTED if name != lost))


def require_the_same(found: FederatedAnswer, wanted: FederatedAnswer) -> None:
    """An answer of those that were left is what those alone would have answered."""
    assert found.text == wanted.text
    assert found.log_likelihood == pytest.approx(wanted.log_likelihood, abs=1e-6)
    shares = {one.name: one.posterior for one in found.parties if one.answered}
    assert shares == pytest.approx({one.name: one.posterior for one in wanted.parties}, abs=1e-6)


def reason_of(found: FederatedAnswer, name: str) -> str:
    (party,) = [one for one in found.parties if one.name == name]
    assert not party.answered
    assert (party.prior, party.posterior, party.passages) == (0.0, 0.0, 0)
    return party.reason


class Waiting(LocalParties):
    """Parties of which one falls silent at a step."""

    def __init__(self, parties: Sequence[Party], silent: str, step: str) -> None:
        super().__init__(parties, at_once=True)
        self.silent, self.step, self.waits = silent, step, set[float]()

    def ask(self, requests: Mapping[str, bytes], wait: Wait) -> Iterable[Reply]:
        self.waits.add(wait.deadline)
        for reply in super().ask(requests, wait):
            kind = Message.unpack(requests[reply.party]).kind
            if (reply.party, kind) == (self.silent, self.step):
                yield Reply(reply.party, None, "no reply within 7 s", 7.0)
            else:
                yield reply


@pytest.mark.parametrize("step", ["look", "propose", "weigh"])
def test_a_silent_party_is_named_and_the_rest_answer(town: Town, rag: Rag, step: str) -> None:
    way = Waiting([town.party(name) for name in LISTED], "bank", step)
    found = inquire(QUESTIONS[0], rag, way, replace(SHORT, patience=77.0))
    way.close()
    assert way.waits == {77.0}
    assert reason_of(found, "bank") == "no reply within 7 s"
    require_the_same(found, without(town, rag, QUESTIONS[0], "bank"))


def test_a_party_that_is_silent_at_the_end_shows_nothing(town: Town, rag: Rag) -> None:
    way = Waiting([town.party(name, "source") for name in LISTED], "bank", "show")
    found = inquire(QUESTIONS[0], rag, way, SHORT)
    way.close()
    wanted = ask(town, rag, QUESTIONS[0])
    assert [replace(one, reason="") for one in found.parties] == list(wanted.parties)
    assert {one.name: one.reason for one in found.parties}["bank"] == "no reply within 7 s"
    assert "bank" not in {one.party for one in found.sources}


def test_a_party_that_never_answers_is_waited_for_no_longer_than_said(town: Town, rag: Rag) -> None:
    class Stuck:
        name = "bank"
        free = Event()

        def answer(self, request: bytes) -> bytes:
            self.free.wait(60)
            return request

    stuck = Stuck()
    try:
        with pytest.raises(RemoteError, match="no party answered: bank: no reply within 0 s"):
            ask(town, rag, QUESTIONS[0], stuck, options=replace(SHORT, patience=0.2))
    finally:
        stuck.free.set()


def test_a_party_that_refuses_is_named(town: Town, rag: Rag) -> None:
    parties = [town.party("bank", "nothing"), town.party("hospital")]
    found = ask(town, rag, QUESTIONS[0], *parties)
    assert reason_of(found, "bank") == (
        "bank answers no questions; a party that wants to says so in its own file: "
        "asking: {tells: answer}"
    )
    require_the_same(found, ask(town, rag, QUESTIONS[0], town.party("hospital")))


def test_by_default_nobody_answers(town: Town, rag: Rag) -> None:
    from consilience.federation.config import AskingSettings

    assert AskingSettings().tells == "nothing"
    with pytest.raises(RemoteError, match="no party answered: bank: bank answers no questions"):
        ask(town, rag, QUESTIONS[0], town.party("bank", "nothing"))
    with parties_of() as way, pytest.raises(RemoteError, match="no party answered: none is there"):
        inquire(QUESTIONS[0], rag, way)


def test_another_model_is_named_with_both_fingerprints(
    town: Town, rag: Rag, tmp_path: Path
) -> None:
    other = write_sharp_model(tmp_path / "other", 7)
    stranger = replace(town, model=other, folder=tmp_path)
    fill(tmp_path / "bank", other, "bank", DOCUMENTS["bank"])
    found = ask(town, rag, QUESTIONS[0], stranger.party("bank"), town.party("hospital"))
    reason = reason_of(found, "bank")
    assert reason.startswith("the model of bank is ")
    assert reason.endswith("all parties and the asker need the same model")
    require_the_same(found, ask(town, rag, QUESTIONS[0], town.party("hospital")))


def test_one_weight_more_is_another_model(town: Town) -> None:
    from consilience.federation.likeness import likeness

    rag = Rag.load(town.model)
    before = likeness(rag)
    assert before == likeness(Rag.load(town.model))
    with torch.no_grad():
        rag.model.log_temperature += 1e-6
    assert likeness(rag) != before


def bent(kind: str, change: Callable[[Message], Mapping[str, Any]]) -> Callable[..., bytes]:
    """What becomes of a reply of one kind."""

    def bend(_: bytes, reply: bytes) -> bytes:
        said = Message.unpack(reply)
        return reply if said.kind != kind else replace(said, **change(said)).pack()

    return bend


def tensors(**changes: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Message], Any]:
    def change(said: Message) -> Mapping[str, Any]:
        found = {n: changes.get(n, lambda one: one)(one) for n, one in said.tensors.items()}
        return {"tensors": found}

    return change


def first(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(one: torch.Tensor) -> torch.Tensor:
        new = one.clone()
        new.view(-1)[0] = value
        return new

    return change


HOSTILE = {
    "NaN scores": ("seen", tensors(scores=first(float("nan"))), "a score is no number from -1"),
    "loud scores": ("seen", tensors(scores=first(50.0)), "a score is no number from -1"),
    "many scores": ("seen", tensors(scores=lambda s: torch.full((500,), 0.9)), "500 scores came"),
    "no order": ("seen", tensors(scores=lambda s: s.flip(0)), "scores are not in their order"),
    "no scores": ("seen", lambda _: {"tensors": {}}, "scores must be one row of float32"),
    "thousands": (
        "proposed",
        tensors(answers=lambda a: torch.arange(50_000).reshape(-1, 1) % 100),
        "50000 answers came",
    ),
    "long": ("proposed", tensors(answers=lambda a: torch.ones(1, 400).long()), "of 400 ids came"),
    "strange": ("proposed", tensors(answers=first(10**9)), "ids that the model has not"),
    "twice": ("proposed", tensors(answers=lambda a: a[:1].repeat(2, 1)), "empty or came twice"),
    "empty": ("proposed", tensors(answers=lambda a: a[:0]), "proposes no answer"),
    "floats": ("proposed", tensors(answers=lambda a: a.double()), "one table of whole numbers"),
    "NaN": ("weighed", tensors(log_likelihoods=first(float("nan"))), "no number, or above one"),
    "never": ("weighed", tensors(log_likelihoods=first(float("-inf"))), "no number, or above one"),
    "positive": ("weighed", tensors(log_likelihoods=first(0.5)), "no number, or above one"),
    "too sure": ("weighed", tensors(log_likelihoods=lambda one: 0 * one), "more than one"),
    "wrong shape": ("weighed", tensors(log_likelihoods=lambda one: one[:-1]), "of other answers"),
    "support": ("weighed", tensors(support=first(7.0)), "the support is no share"),
}


@pytest.mark.parametrize(("kind", "change", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_reply_names_its_party_and_does_not_count(
    town: Town, rag: Rag, kind: str, change: Any, reason: str
) -> None:
    question = QUESTIONS[2]
    hostile = Bent(town.party("bank"), bent(kind, change))
    others = [town.party(name) for name in LISTED if name != "bank"]
    found = ask(town, rag, question, hostile, *others)
    assert reason in reason_of(found, "bank")
    require_the_same(found, without(town, rag, question, "bank"))


SHOWN = {
    "shares": (tensors(shares=lambda one: one * 2), "shares do not come to one"),
    "negative": (tensors(shares=first(-1.0)), "shares do not come to one"),
    "few": (tensors(shares=lambda one: one[:0]), "shares of other passages"),
    "no evidence": (lambda _: {"content": {"spelled": None}}, "cannot be understood"),
    "less evidence": (lambda _: {"content": {"spelled": None, "evidence": []}}, "of other pass"),
    "numbers": (lambda said: {"content": {**said.content, "spelled": [0, 7]}}, "cannot be unders"),
    "a book": (
        lambda said: {"content": {**said.content, "spelled": [0, "a" * 30_000]}},
        "cannot be understood",
    ),
}


@pytest.mark.parametrize(("change", "reason"), SHOWN.values(), ids=SHOWN)
def test_what_is_shown_wrongly_is_not_shown(town: Town, rag: Rag, change: Any, reason: str) -> None:
    found = ask(town, rag, QUESTIONS[0], Bent(town.party("bank"), bent("shown", change)))
    (party,) = found.parties
    assert reason in party.reason
    assert party.posterior == pytest.approx(1)
    assert found.sources == ()
    assert found.text


def test_a_spelling_is_the_answer_that_was_chosen_or_is_not_taken(town: Town, rag: Rag) -> None:
    def other(said: Message) -> Mapping[str, Any]:
        return {"content": {**said.content, "spelled": [0, "call the exam bank"]}}

    parties = [Bent(town.party(name), bent("shown", other)) for name in LISTED]
    found = ask(town, rag, QUESTIONS[0], *parties)
    generator = rag.model.generator
    plain = ask(town, rag, QUESTIONS[0]).text
    assert "".join(found.text.split()).lower() == "".join(plain.split()).lower()
    assert generator.decode(generator.answer_ids(found.text)[:-1]) == found.text


def test_all_stores_empty_is_no_answer_and_no_error(town: Town, rag: Rag, tmp_path: Path) -> None:
    empty = replace(town, folder=tmp_path)
    fill(tmp_path / "bank", town.model, "bank", ())
    found = ask(town, rag, QUESTIONS[0], empty.party("bank"))
    assert (found.text, found.abstained, found.confidence) == ("", True, 0.0)
    assert found.to_dict()["parties"][0]["answered"]
    both = ask(town, rag, QUESTIONS[0], empty.party("bank"), town.party("hospital"))
    require = {one.name: (one.answered, one.passages) for one in both.parties}
    assert require == {"bank": (True, 0), "hospital": (True, 3)}


@pytest.mark.parametrize("mode", ["bm25", "hybrid"])
def test_other_modes_are_refused_with_the_reason(town: Town, rag: Rag, mode: str) -> None:
    with pytest.raises(UsageError, match="the mode must be dense: scores of words depend on"):
        ask(town, rag, QUESTIONS[0], options=InquiryOptions(mode=mode))


def test_bounds_are_told_all_at_once(town: Town, rag: Rag) -> None:
    with pytest.raises(UsageError) as caught:
        ask(town, rag, QUESTIONS[0], options=InquiryOptions(k=101, beams=0, max_new_tokens=9999))
    assert caught.value.message == (
        "k must be a number from 1 to 100; beams must be a number from 1 to 32; "
        "tokens must be a number from 1 to 512"
    )
    with pytest.raises(UsageError, match="the question is empty"):
        ask(town, rag, "  ")


def test_the_json_has_the_keys_of_an_answer(town: Town, rag: Rag) -> None:
    found = ask(town, rag, QUESTIONS[0]).to_dict()
    wanted = alone(rag, town.whole, QUESTIONS[0])
    assert found.keys() >= wanted.to_dict().keys()
    cited = found["citations"][0]
    assert cited.keys() >= wanted.to_dict()["citations"][0].keys()
    assert cited["passage_id"] == f"{cited['party']}:1" or cited["source"] is None
    assert {"name", "answered", "posterior", "reason"} <= found["parties"][0].keys()
