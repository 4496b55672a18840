from collections.abc import Iterator
from dataclasses import replace

import pytest

from consilience.errors import UsageError
from consilience.federation.privacy.records import records_of
from consilience.questions import Context, Question
from consilience.training.examples import Example, make_examples
from tests.federation.privacy.learners import World, opened_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with opened_world(tmp_path_factory.mktemp("party")) as found:
        yield found


def asked(records: list[list[Example]]) -> list[list[str]]:
    return [[one.question for one in record] for record in records]


def test_a_question_asked_twice_is_one_record() -> None:
    examples = [
        Example("Who may apply?", "a"),
        Example("When?", "b"),
        Example("who may apply", "c"),
    ]
    found = asked(records_of(examples, "question", index=None))
    assert found == [["Who may apply?", "who may apply"], ["When?"]]


def test_everything_of_a_user_is_one_record() -> None:
    examples = [Example(f"q{i}", "a", user=user) for i, user in enumerate("abacb")]
    assert asked(records_of(examples, "user", index=None)) == [["q0", "q2"], ["q1", "q4"], ["q3"]]


def test_questions_without_a_user_are_refused() -> None:
    examples = [Example("q0", "a", user="a"), Example("q1", "a")]
    with pytest.raises(UsageError, match="1 of 2 questions name no user") as caught:
        records_of(examples, "user", index=None)
    assert '"user"' in caught.value.hint


def test_passages_of_one_document_are_one_record(world: World) -> None:
    records = records_of(world.examples, "document", index=world.index)
    assert len(records) == 8
    assert all(len({one.question for one in record}) == 1 for record in records)


def test_a_question_about_two_documents_makes_them_one_record(world: World) -> None:
    one, other, third = (example.passage for example in world.distinct()[:3])
    assert one is not None
    assert other is not None
    assert third is not None
    elsewhere = Context("context-1", "", "not in the store")
    examples = [
        Example("a", "1", passage=one),
        Example("b", "1", passage=other),
        Example("c", "1", passage=third),
        Example("d", "1", passage=elsewhere),
        Example("e", "1", passage=other, positive_ids=(other.id, third.id)),
    ]
    found = asked(records_of(examples, "document", index=world.index))
    assert found == [["a"], ["b", "c", "e"], ["d"]]
    with pytest.raises(UsageError, match="1 of 6 questions name no document"):
        records_of([*examples, Example("f", "1")], "document", index=world.index)


def test_examples_carry_what_records_are_made_of() -> None:
    question = Question("q", ("a",), user="u", positive_ids=("p1", "p2"))
    (example,) = make_examples([question], look_up=lambda _: None)
    assert (example.user, example.positive_ids) == ("u", ("p1", "p2"))
    assert replace(example, user="v").user == "v"
