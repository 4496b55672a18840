"""Tables of questions: a pandas DataFrame or a `datasets.Dataset`, row by row.

A table is recognised by what it can do, so that neither package is ever imported here. Columns are
the keys of question JSONL; a cell that is empty (None, NaN) is as a key that is not there.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

from consilience.errors import DocumentError, UsageError
from consilience.questions.fields import Fields, unreadable
from consilience.questions.question import Question
from consilience.questions.records import question_of


@runtime_checkable
class Frame(Protocol):
    """What is used of a pandas DataFrame."""

    @property
    def columns(self) -> Iterable[Any]:
        """The names of the columns."""
        ...

    def to_dict(self, orient: Literal["records"]) -> list[dict[Any, Any]]:
        """The rows, each as a mapping of column to value."""
        ...


@runtime_checkable
class Dataset(Protocol):
    """What is used of a `datasets.Dataset`."""

    @property
    def column_names(self) -> list[str]:
        """The names of the columns."""
        ...

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """The rows."""
        ...


def questions_of_frame(
    frame: Frame | Dataset, *, columns: Mapping[str, str] | None = None
) -> list[Question]:
    """One question per row.

    Args:
        frame: With a column `question`, mostly also `answers` (lists of texts) or `answer`, and
            any other key of `Question`.
        columns: From names of its columns to keys, such as `{"query": "question"}`.

    Raises:
        UsageError: There is no column `question`, or `columns` names one that is not there.
        DocumentError: Rows that are not questions, each with its number.
    """
    names = _columns(frame)
    renamed = columns or {}
    absent = sorted(set(renamed) - set(names))
    if absent or "question" not in {renamed.get(name, name) for name in names}:
        raise UsageError(
            f"the table has no column {absent[0] if absent else 'question'!r}; "
            f"its columns are {', '.join(names) or 'none'}",
            hint='Say which column holds the questions: columns={"…": "question"}.',
        )
    return _questions(_rows(frame), renamed)


def _questions(rows: Iterable[Mapping[Any, Any]], renamed: Mapping[str, str]) -> list[Question]:
    found, faults = [], []
    for number, row in enumerate(rows, start=1):
        named = {renamed.get(str(key), str(key)): _cell(value) for key, value in row.items()}
        values = {key: value for key, value in named.items() if value is not None}
        try:
            found.append(question_of(Fields(f"row {number}", values)))
        except DocumentError as error:
            faults.append(error.message)
    if faults:
        raise unreadable("the table", faults, hint='A row needs at least a text under "question".')
    return found


def _columns(frame: Frame | Dataset) -> list[str]:
    if isinstance(frame, Frame):
        return [str(column) for column in frame.columns]
    if isinstance(frame, Dataset):
        return list(frame.column_names)
    raise UsageError(
        f"a {type(frame).__name__} is no table of questions",
        hint="Give a pandas DataFrame or a datasets.Dataset with a column 'question'.",
    )


def _rows(frame: Frame | Dataset) -> Iterable[Mapping[Any, Any]]:
    return frame.to_dict("records") if isinstance(frame, Frame) else frame


def _cell(value: Any) -> Any:
    """A cell as JSON would hold it: arrays as lists, numbers as text, what is absent as None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if value is None or value != value or type(value).__name__ in {"NAType", "NaTType"}:
        return None
    if isinstance(value, (list, tuple)):
        return [_cell(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _cell(item) for key, item in value.items()}
    return _number(value) if isinstance(value, (int, float)) else value


def _number(value: float) -> Any:
    """A number as text; a column of whole numbers with gaps comes as 7.0."""
    if isinstance(value, bool):
        return value
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
