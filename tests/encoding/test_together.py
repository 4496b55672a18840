import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from consilience.encoding import QuestionVectors, Vectors
from consilience.encoding.together import MOST
from consilience.errors import UsageError

SECONDS = 30


@dataclass
class Held:
    """An encoder that waits until it may, and remembers what it was asked together."""

    fingerprint: str = "held"
    dimension: int = 2
    batches: list[list[str]] = field(default_factory=list)
    may: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)

    def encode_passages(self, passages: Sequence[str]) -> Vectors:
        raise NotImplementedError

    def encode_questions(self, questions: Sequence[str]) -> Vectors:
        self.batches.append(list(questions))
        self.begun.set()
        assert self.may.wait(SECONDS)
        if "interrupt" in questions and len(questions) > 1:
            raise KeyboardInterrupt
        for question in questions:
            if question.startswith("bad"):
                raise UsageError(f"cannot read {question!r}", hint="ask for something else")
        return np.array([[len(one), ord(one[0])] for one in questions], np.float32)


def asking(vectors: QuestionVectors, questions: Sequence[str]) -> "Callable[[], dict[str, object]]":
    """Ask all at once, each on its own thread; what came of them, once they have ended."""
    found: dict[str, object] = {}

    def ask(question: str) -> None:
        try:
            found[question] = vectors.of(question).tolist()
        except UsageError as error:
            found[question] = error.message
        except KeyboardInterrupt:
            found[question] = "interrupted"

    threads = [threading.Thread(target=ask, args=(one,), daemon=True) for one in questions]
    for thread in threads:
        thread.start()

    def ended() -> dict[str, object]:
        for thread in threads:
            thread.join(SECONDS)
        return found

    return ended


def held(first: str, *others: str) -> tuple[Held, Callable[[], dict[str, object]]]:
    """`others` asked while `first` is being encoded."""
    encoder = Held()
    vectors = QuestionVectors(encoder)
    one = asking(vectors, [first])
    assert encoder.begun.wait(SECONDS)
    rest = asking(vectors, others)
    until = time.monotonic() + SECONDS
    while len(vectors._waiting) < len(others):
        assert time.monotonic() < until
        time.sleep(0.01)
    encoder.may.set()
    return encoder, lambda: one() | rest()


def test_what_is_asked_meanwhile_is_encoded_together() -> None:
    encoder, ended = held("a", "bc", "def", "g")
    assert ended() == {"a": [1, 97], "bc": [2, 98], "def": [3, 100], "g": [1, 103]}
    assert encoder.batches[0] == ["a"]
    assert sorted(encoder.batches[1]) == ["bc", "def", "g"]
    assert len(encoder.batches) == 2


def test_a_batch_has_its_limit_and_nobody_is_forgotten() -> None:
    others = [f"{number} of many" for number in range(20)]
    encoder, ended = held("a", *others)
    assert len(ended()) == 21
    assert [len(batch) for batch in encoder.batches] == [1, MOST, MOST, 4]
    assert sorted(one for batch in encoder.batches for one in batch) == sorted(["a", *others])


def test_an_error_is_heard_by_its_own_asker_alone() -> None:
    encoder, ended = held("a", "bad b", "c", "bad d")
    assert ended() == {
        "a": [1, 97],
        "bad b": "cannot read 'bad b'",
        "c": [1, 99],
        "bad d": "cannot read 'bad d'",
    }
    assert sorted(map(len, encoder.batches)) == [1, 1, 1, 1, 3]


def test_who_waits_is_not_lost_when_the_one_at_work_is_interrupted() -> None:
    _, ended = held("a", "interrupt", "b")
    found = ended()
    assert list(found.values()).count("interrupted") == 1
    assert len(found) == 3


def test_the_last_question_of_a_thread_is_not_encoded_again() -> None:
    encoder = Held()
    encoder.may.set()
    vectors = QuestionVectors(encoder)
    assert vectors.of("a") is vectors.of("a")
    vectors.of("b")
    vectors.of("a")
    assert encoder.batches == [["a"], ["b"], ["a"]]


def test_an_error_is_not_kept() -> None:
    encoder = Held()
    encoder.may.set()
    vectors = QuestionVectors(encoder)
    for _ in range(2):
        with pytest.raises(UsageError, match="cannot read 'bad'"):
            vectors.of("bad")
    assert encoder.batches == [["bad"], ["bad"]]
