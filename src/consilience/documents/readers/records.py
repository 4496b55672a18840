"""Documents as JSON: one object for each line (jsonl), or one object or a list of them (json).

Every key of a record is checked and an unknown one is refused: a misspelt `access` that was passed
over in silence would show a document to everyone.
"""

import codecs
import io
import json
from collections.abc import Iterator, Mapping

from consilience.documents.builder import too_long
from consilience.documents.decoding import decode_text
from consilience.documents.document import Document
from consilience.documents.normalise import storable
from consilience.documents.readers.base import RawFile, title_from
from consilience.errors import DocumentError
from consilience.text import language_of

KEYS = ("text", "id", "title", "source", "language", "contributor", "access", "metadata")
"""What a record may hold; only `text` must be there."""

_SHAPE = 'one JSON object per line, such as {"text": "…", "title": "…", "access": ["staff"]}'


def read_records(file: RawFile) -> Iterator[Document]:
    """The documents of the file, each checked as it comes.

    A record without `source` gets that of the file, followed by `#` and its `id` or its number.

    Raises:
        DocumentError: A line or record that is not a document, by its number.
    """
    seen: set[str] = set()
    for place, value in _values(file):
        try:
            document = _document(file, place, value)
        except DocumentError as error:
            raise DocumentError(f"{place}: {error.message}", hint=error.hint) from error
        if document.source in seen:
            raise DocumentError(f"{place}: the source {document.source!r} comes twice")
        seen.add(document.source)
        yield document
    if not seen:
        raise DocumentError("holds no text: not one record", hint=_SHAPE)


def _values(file: RawFile) -> Iterator[tuple[str, object]]:
    """Each JSON value of the file with its place, `line 3` or `record 3`."""
    if file.suffix == ".json":
        whole = _whole(file.data)
        if whole is not None:
            yield from ((f"record {n}", value) for n, value in enumerate(whole, start=1))
            return
    for number, line in enumerate(_lines(file.data), start=1):
        if line.strip():
            yield f"line {number}", _parsed(line, number)


def _whole(data: bytes) -> list[object] | None:
    """The records of a file that is one JSON value; None if it is not, as with JSON lines."""
    try:
        value = json.loads(decode_text(data))
    except ValueError:
        return None
    except RecursionError:
        raise DocumentError("is nested too deep to be documents", hint=_SHAPE) from None
    return value if isinstance(value, list) else [value]


def _lines(data: bytes) -> io.BytesIO:
    """Lines in UTF-8; only a line feed ends one, since JSON may hold other separators raw."""
    if data.startswith(codecs.BOM_UTF8):
        data = data[len(codecs.BOM_UTF8) :]
    elif data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        data = decode_text(data).encode("utf-8")
    return io.BytesIO(data)


def _parsed(line: bytes, number: int) -> object:
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DocumentError(f"line {number}: not UTF-8", hint="save the file as UTF-8") from error
    except RecursionError:
        raise DocumentError(f"line {number}: nested too deep", hint=_SHAPE) from None
    except ValueError as error:
        raise DocumentError(f"line {number}: not JSON ({error})", hint=_SHAPE) from error


def _document(file: RawFile, place: str, value: object) -> Document:
    if not isinstance(value, dict):
        raise DocumentError(f"a {type(value).__name__} where an object was expected", hint=_SHAPE)
    _refuse_unknown(value)
    text = _text(value, "text")
    if not text.strip():
        raise DocumentError("holds no text under 'text'", hint=_SHAPE)
    if len(text) > file.text_chars:
        raise too_long(file.text_chars)
    name = _text(value, "id") or place.split()[1]
    return Document(
        text=text,
        source=_text(value, "source") or f"{file.source}#{name}",
        title=title_from(_text(value, "title")),
        id=_text(value, "id"),
        language=_text(value, "language") or language_of(text),
        contributor=_text(value, "contributor"),
        access=_access(value.get("access")),
        metadata=_metadata(value.get("metadata")),
    )


def _refuse_unknown(record: Mapping[str, object]) -> None:
    if "question" in record:
        raise DocumentError("a question and not a document", hint=_SHAPE)
    unknown = sorted(set(record) - set(KEYS))
    if unknown:
        raise DocumentError(
            f"unknown key {storable(unknown[0])[:60]!r}",
            hint=f"known are {', '.join(KEYS)}; put further facts under 'metadata'",
        )


def _text(record: Mapping[str, object], key: str) -> str:
    value = record.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DocumentError(f"{key!r} is a {type(value).__name__}, not text", hint=_SHAPE)
    return storable(value)


def _access(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(label, str) and label for label in value):
        raise DocumentError("'access' is not a list of labels", hint=_SHAPE)
    return tuple(storable(label) for label in value)


def _metadata(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise DocumentError("'metadata' is not an object", hint=_SHAPE)
    return {storable(name): _fact(name, fact) for name, fact in value.items()}


def _fact(name: str, value: object) -> str:
    """A fact as text; numbers and truth values are written as in JSON."""
    if isinstance(value, str):
        return storable(value)
    if value is None or isinstance(value, (bool, int, float)):
        return json.dumps(value)
    raise DocumentError(f"'metadata' holds a {type(value).__name__} under {storable(name)[:60]!r}")
