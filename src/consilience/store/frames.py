"""Tables of documents: a pandas DataFrame with a column `text`, row by row.

A table is recognised by what it can do, so that pandas is never imported here. Columns are those of
document JSONL; a column of another name becomes metadata.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

from consilience.documents import Document
from consilience.errors import UsageError

_TEXT_FIELDS = ("id", "title", "language", "contributor")
_KNOWN = {"text", "source", "access", *_TEXT_FIELDS}


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


def documents_of(frame: Frame) -> list[Document]:
    """One document per row.

    Its source is the column `source`, else `id`, else a digest of the text, so that adding the same
    table again finds the same documents.

    Raises:
        UsageError: There is no column `text`.
    """
    columns = [str(column) for column in frame.columns]
    if "text" not in columns:
        raise UsageError(
            f"the table has no column 'text'; its columns are {', '.join(columns) or 'none'}",
            hint='Rename the column that holds the documents: frame.rename(columns={"…": "text"}).',
        )
    return [_document(row) for row in frame.to_dict("records")]


def _document(row: Mapping[Any, Any]) -> Document:
    values = {str(key): value for key, value in row.items() if not _is_absent(value)}
    text = str(values.get("text", ""))
    id_, title, language, contributor = (str(values.get(name, "")) for name in _TEXT_FIELDS)
    return Document(
        text=text,
        source=str(values.get("source") or id_ or _name_of(text)),
        title=title,
        id=id_,
        language=language,
        contributor=contributor,
        access=_labels(values.get("access", ())),
        metadata={key: str(value) for key, value in values.items() if key not in _KNOWN},
    )


def _is_absent(value: Any) -> bool:
    if isinstance(value, float):
        return value != value
    return value is None or type(value).__name__ in {"NAType", "NaTType"}


def _labels(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,) if value else ()
    return tuple(str(label) for label in value)


def _name_of(text: str) -> str:
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    return f"text-{digest[:16]}"
