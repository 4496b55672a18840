"""Tables of questions."""

from collections.abc import Iterator
from typing import Any

import pytest

from consilience.errors import DocumentError, UsageError
from consilience.questions import Question, questions_of_frame

pandas = pytest.importorskip("pandas")


class Rows:
    """As much of a `datasets.Dataset` as is used."""

    def __init__(self, *rows: dict[str, Any]) -> None:
        self._rows = rows
        self.column_names = list(rows[0])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._rows)


def test_a_frame_with_question_and_answer() -> None:
    frame = pandas.DataFrame(
        {
            "question": ["When?", "谁？"],
            "answer": [1912, None],
            "id": [1.0, float("nan")],
            "note": ["x", "y"],
        }
    )
    assert questions_of_frame(frame) == [
        Question("When?", ("1912",), id="1", language="en"),
        Question("谁？", language="zh"),
    ]


def test_lists_and_arrays_in_cells() -> None:
    numpy = pytest.importorskip("numpy")
    frame = pandas.DataFrame(
        {
            "question": ["Q?", "R?"],
            "answers": [["a", "b"], numpy.array(["c"], dtype=object)],
            "unanswerable": [False, False],
        }
    )
    assert [each.answers for each in questions_of_frame(frame)] == [("a", "b"), ("c",)]


def test_columns_of_other_names() -> None:
    frame = pandas.DataFrame({"query": ["Q?"], "gold": ["a"]})
    found = questions_of_frame(frame, columns={"query": "question", "gold": "answer"})
    assert found == [Question("Q?", ("a",), language="en")]


def test_a_dataset_of_hugging_face() -> None:
    rows = Rows({"question": "Q?", "answers": {"text": ["a"], "answer_start": [3]}, "id": "1"})
    assert questions_of_frame(rows) == [Question("Q?", ("a",), id="1", language="en")]


def test_bad_rows_are_named_at_once() -> None:
    frame = pandas.DataFrame({"question": ["Q?", "", None], "answers": [["a"], ["b"], ["c"]]})
    with pytest.raises(DocumentError) as caught:
        questions_of_frame(frame)
    assert caught.value.message.split("\n") == [
        "the table: wrong in 2 places",
        "  row 2, key 'question': expected a text that says something, received \"\" (text)",
        "  row 3, key 'question': it is missing; there are 'answers'",
    ]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (None, "the table has no column 'question'; its columns are q, a"),
        ({"z": "question"}, "the table has no column 'z'; its columns are q, a"),
        ({"a": "answer"}, "the table has no column 'question'; its columns are q, a"),
    ],
)
def test_a_table_without_questions(columns: dict[str, str] | None, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        questions_of_frame(pandas.DataFrame({"q": ["Q?"], "a": ["a"]}), columns=columns)
    assert caught.value.message == message
    assert caught.value.hint == 'Say which column holds the questions: columns={"…": "question"}.'


def test_what_is_no_table() -> None:
    with pytest.raises(UsageError, match="a list is no table of questions"):
        questions_of_frame([{"question": "Q?"}])  # type: ignore[arg-type]
