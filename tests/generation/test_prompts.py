import pytest

from consilience.errors import UsageError
from consilience.generation import Pair
from consilience.generation.prompts import PROMPTS, Wording, prompt_named, rag

PAIR = Pair("what is the fee?", '"Fees"', "The fee is 5.")


def test_rag_is_written_as_the_library_writes_it() -> None:
    assert PROMPTS["rag"](PAIR).text() == "Fees / The fee is 5. // what is the fee?"


def test_rag_makes_one_space_of_two_once() -> None:
    pair = Pair("  a   b", "t ", "x    y ")
    wording = rag(pair, prefix=" ")
    raw = " t  / x    y  //   a   b"
    assert wording.text() == raw.replace("  ", " ")
    assert wording.passage.strip() == "x  y"


def test_question_and_context() -> None:
    assert PROMPTS["question-context"](PAIR).text() == (
        "question: what is the fee? context: The fee is 5."
    )


def test_fid() -> None:
    assert PROMPTS["fid"](Pair("q", "t", "p")).text() == "question: q title: t context: p"


@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_every_prompt_keeps_the_passage_apart(name: str) -> None:
    wording = prompt_named(name)(PAIR)
    assert wording.passage == PAIR.passage
    assert PAIR.question in wording.before + wording.after


def test_a_part_of_the_passage() -> None:
    assert Wording("a ", "bcd", " e").text(2) == "a bc e"


def test_an_unknown_prompt_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown prompt 'rhyme'") as raised:
        prompt_named("rhyme")
    assert raised.value.hint == "choose one of: chat, fid, plain, question-context, rag"
