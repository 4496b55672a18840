"""A party's side of a question: in its order, once, within its bounds, and nothing besides."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from consilience.documents import Document
from consilience.encoding import load_encoder
from consilience.federation.exchange import Question, packed
from consilience.federation.likeness import likeness
from consilience.federation.messages import Message
from consilience.model import Rag
from consilience.store import Store
from tests.federation.asked import Town, write_town
from tests.federation.small import fault, said

Answers = list[list[int]]


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    return write_town(tmp_path_factory.mktemp("town"))


@pytest.fixture(scope="module")
def model(town: Town) -> str:
    return likeness(Rag.load(town.model))


@pytest.fixture
def own(town: Town, tmp_path: Path) -> Town:
    """With folders of this test's own for what parties write."""
    for name in ("hospital", "bank", "university"):
        (tmp_path / name).symlink_to(town.folder / name)
    return replace(town, folder=tmp_path)


def look(model: str, name: str = "ask-1", **values: Any) -> bytes:
    question = Question("what is the fee", "coordinator", model, k=4, beams=2, tokens=3)
    return Message("look", name, 0, "bank", question.to_dict() | values).pack()


def step(
    kind: str,
    take: Any = 2,
    answers: Sequence[Sequence[int]] = (),
    name: str = "ask-1",
    number: int = 1,
) -> bytes:
    tensors = packed(answers) if answers else {}
    return Message(kind, name, number, "bank", {"take": take}, tensors).pack()


def answers_of(reply: Message) -> Answers:
    return [[i for i in row if i >= 0] for row in reply.tensors["answers"].tolist()]


def book(town: Town) -> list[dict[str, Any]]:
    path = town.folder / "states" / "bank" / "asked.jsonl"
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines]


def test_a_question_goes_from_look_to_show(own: Town, model: str) -> None:
    party = own.party("bank", "sentence")
    seen = said(party, look(model))
    assert (seen.kind, seen.run, seen.party) == ("seen", "ask-1", "bank")
    assert seen.tensors["scores"].shape == (4,)
    proposed = answers_of(said(party, step("propose")))
    assert 1 <= len(proposed) <= 2 * 2
    weighed = said(party, step("weigh", answers=proposed))
    found = weighed.tensors["log_likelihoods"]
    assert bool((found <= 0).all())
    assert 0 < float(weighed.tensors["support"]) < 1
    shown = said(party, step("show", answers=proposed[:1]))
    assert float(shown.tensors["shares"].sum()) == pytest.approx(1)
    assert [one["source"][:5] for one in shown.content["evidence"]] == ["bank-", "bank-"]
    assert [entry["asker"] for entry in book(own)] == ["coordinator"]
    party.close()


def test_nothing_of_a_question_is_written_down(own: Town, model: str) -> None:
    party = own.party("bank")
    party.answer(look(model, text="who is zylberstein"))
    proposed = answers_of(said(party, step("propose")))
    party.answer(step("weigh", answers=proposed))
    party.answer(step("weigh", take=77, answers=proposed))
    party.close()
    files = [path for path in (own.folder / "states").rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"asked.jsonl", "errors.log"}
    assert not any(b"zylberstein" in path.read_bytes() for path in files)


def test_the_same_request_has_the_same_answer_and_counts_once(own: Town, model: str) -> None:
    party = own.party("bank", asking={"a_day": 1})
    first = party.answer(look(model))
    proposed = party.answer(step("propose"))
    assert party.answer(look(model)) == first
    assert party.answer(step("propose")) == proposed
    assert len(book(own)) == 1
    assert "bank answers 1 questions within 24 hours, and was asked so many" in fault(
        party, look(model, "ask-2")
    )
    # A restart forgets questions, and never what was asked.
    again = own.party("bank", asking={"a_day": 1})
    assert "not known here any more" in fault(again, step("propose"))
    assert "answers 1 questions" in fault(again, look(model))
    assert len(book(own)) == 1


def test_a_refusal_is_not_counted_and_opens_nothing(own: Town, model: str) -> None:
    party = own.party("bank", "nothing", model="no such model")
    assert "bank answers no questions" in fault(party, look(model))
    assert "the model of bank is" in fault(own.party("bank"), look("another"))
    assert book(own) == []


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"k": 101}, "k must be a number from 1 to 100"),
        ({"k": True}, "k must be a number from 1 to 100"),
        ({"k": 100, "beams": 32}, "k times beams may be 1000 at most"),
        ({"tokens": 0}, "tokens must be a number from 1 to 512"),
        ({"text": ""}, "the text must have 1 to 4000 characters"),
        ({"text": 7}, "the text must have 1 to 4000 characters"),
        ({"asker": "a" * 101}, "the asker must have 1 to 100 characters"),
        ({"mode": "bm25"}, "the mode must be dense"),
        ({"protocol": 99}, "the asker speaks protocol 99, this party 1"),
        ({"more": 1}, "a question without what belongs to one"),
    ],
)
def test_a_question_beyond_its_bounds_is_refused(
    own: Town, model: str, values: Mapping[str, Any], reason: str
) -> None:
    assert reason in fault(own.party("bank"), look(model, **values))
    assert book(own) == []


def test_steps_out_of_order_are_refused(own: Town, model: str) -> None:
    party = own.party("bank", "sentence")
    assert "not known here any more" in fault(party, step("show", answers=[[5]]))
    party.answer(look(model))
    proposed = answers_of(said(party, step("propose")))
    assert "only an answer that was weighed" in fault(party, step("show", answers=proposed[:1]))
    party.answer(step("weigh", answers=proposed))
    other = [[9, 9, 9]]
    assert "only an answer that was weighed" in fault(party, step("show", answers=other))
    assert "only an answer that was weighed" in fault(
        party, step("show", take=1, answers=proposed[:1])
    )
    assert said(party, step("show", answers=proposed[:1])).kind == "shown"
    assert "one answer to a question is shown" in fault(party, step("show", answers=proposed[1:2]))
    assert "another question has this name" in fault(party, look(model, text="and the exam"))
    assert len(book(own)) == 1


@pytest.mark.parametrize("take", [0, 5, -1, True, None, "2", 1.0])
def test_passages_that_were_not_found_do_not_count(own: Town, model: str, take: Any) -> None:
    party = own.party("bank")
    party.answer(look(model))
    assert "must be some of those found" in fault(party, step("propose", take=take))


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (torch.ones(9, 1).long(), "9 answers came, 8 may at most"),
        (torch.ones(1, 5).long(), "an answer of 5 ids came, 4 may at most"),
        (torch.tensor([[10**6]]), "ids that the model has not"),
        (torch.tensor([[-5]]), "ids that the model has not"),
        (torch.tensor([[5, -1, 5]]), "an answer has a gap"),
        (torch.tensor([[5], [5]]), "empty or came twice"),
        (torch.tensor([[-1]]), "empty or came twice"),
        (torch.zeros(0, 0).long(), "there is no answer to weigh"),
        (torch.ones(2), "one table of whole numbers"),
    ],
)
def test_answers_that_are_none_are_not_weighed(
    own: Town, model: str, answers: torch.Tensor, reason: str
) -> None:
    party = own.party("bank")
    party.answer(look(model))
    request = Message("weigh", "ask-1", 1, "bank", {"take": 2}, {"answers": answers}).pack()
    assert reason in fault(party, request)


def test_one_question_is_no_way_to_ask_a_thousand(own: Town, model: str) -> None:
    party = own.party("bank")
    party.answer(look(model))
    kinds = [said(party, step("weigh", answers=[[5, n + 6]], number=n)).kind for n in range(20)]
    assert kinds == ["weighed"] * 15 + ["fault"] * 5
    assert len(book(own)) == 1


def test_only_so_many_questions_are_kept(own: Town, model: str) -> None:
    party = own.party("bank")
    for number in range(9):
        party.answer(look(model, f"ask-{number}"))
    assert "not known here any more" in fault(party, step("propose", name="ask-0"))
    assert said(party, step("propose", name="ask-8")).kind == "proposed"
    assert len(book(own)) == 9


def test_documents_with_labels_are_read_only_for_those_who_hold_them(
    town: Town, model: str, tmp_path: Path
) -> None:
    there = replace(town, folder=tmp_path)
    store = Store.open(tmp_path / "bank", encoder=load_encoder(town.model))
    store.add(Document("the card fee is 7 yuan", source="open.txt"))
    store.add(Document("the ward fee is 19 yuan", source="staff.txt", access=("staff",)))
    store.close()
    counts = []
    for access in ([], ["staff"], ["visitors"]):
        party = there.party("bank", asking={"access": access})
        counts.append(len(said(party, look(model, f"ask-{len(counts)}")).tensors["scores"]))
        party.close()
    assert counts == [1, 2, 1]


def test_a_store_and_a_model_of_its_own_may_answer(own: Town, model: str) -> None:
    asking = {"model": str(own.model), "store": str(own.folder / "university")}
    party = own.party("bank", "source", asking=asking, model="none here", store=None)
    assert said(party, look(model)).tensors["scores"].shape == (2,)
    nowhere = own.party("bank", store=None)
    assert "this party has no store to ask" in fault(nowhere, look(model))


def test_a_closed_party_can_be_asked_again(own: Town, model: str) -> None:
    party = own.party("bank")
    party.answer(look(model))
    party.close()
    party.close()
    assert "not known here any more" in fault(party, step("propose"))
    assert said(party, look(model, "ask-2")).kind == "seen"
