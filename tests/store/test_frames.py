"""Tables of documents, by what a DataFrame can do."""

from typing import Any, Literal

import pytest

from consilience.documents import Document
from consilience.errors import UsageError
from consilience.store import Store
from consilience.store.frames import documents_of


class Table:
    """As much of a pandas DataFrame as is used."""

    def __init__(self, *rows: dict[Any, Any], columns: list[Any] | None = None) -> None:
        self._rows = list(rows)
        self.columns = columns if columns is not None else list(rows[0])

    def to_dict(self, orient: Literal["records"]) -> list[dict[Any, Any]]:
        assert orient == "records"
        return self._rows


def test_rows_become_documents() -> None:
    table = Table(
        {"text": "One.", "id": 7, "title": "First", "access": ["a", "b"], "year": 2026},
        {"text": "Two.", "source": "two.md", "title": float("nan"), "access": "ab", "year": None},
    )
    assert documents_of(table) == [
        Document("One.", "7", "First", "7", access=("a", "b"), metadata={"year": "2026"}),
        Document("Two.", "two.md", access=("ab",)),
    ]


def test_rows_without_a_name_are_named_by_their_text(store: Store) -> None:
    table = Table({"text": "One."}, {"text": "Two."})
    assert len(store.add(table).added) == 2
    assert len(store.add(table).unchanged) == 2
    assert all(info.source.startswith("text-") for info in store.sources())


def test_a_table_without_text_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        documents_of(Table(columns=["body", 3]))
    assert caught.value.message == "the table has no column 'text'; its columns are body, 3"


def test_pandas_itself(store: Store) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": ["One.", None], "id": ["a", "b"], "n": [1, None]})
    report = store.add(frame)
    assert report.added == ["a"]
    assert [(failure.path, failure.reason) for failure in report.failed] == [
        ("b", "it holds no text")
    ]
