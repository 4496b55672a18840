"""How the reading child and its parent talk: JSON in frames that say their length first.

The child handles hostile files, so the parent believes nothing it says: a frame has a greatest
length, and a document is rebuilt field by field with its types and offsets checked. JSON is the
whole language; no object is ever restored from bytes.
"""

import base64
import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from consilience.documents.document import Document, Page
from consilience.errors import DocumentError

_SURROGATE = re.compile(r"[\ud800-\udfff]")
_LENGTH = struct.Struct(">Q")

NO_MEMORY = 75
"""The exit code of a child that ran out of memory; it can no longer say so in a frame."""

Message = dict[str, Any]

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in fractions of a page, from its upper left corner."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of a page.

    Attributes:
        picture: PNG; empty where boxes were asked for.
        boxes: Of the characters asked for, those of one line as one.
        complete: Whether the boxes hold all of them; nothing is known of the others.
    """

    picture: bytes = b""
    boxes: tuple[Box, ...] = ()
    complete: bool = False


class WireError(Exception):
    """A frame that is cut off, too long, or not what the protocol allows."""


def write_frame(stream: BinaryIO, message: Mapping[str, Any]) -> None:
    """Send one message."""
    body = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    stream.write(_LENGTH.pack(len(body)))
    stream.write(body)
    stream.flush()


def read_frames(stream: BinaryIO, *, most: int) -> Iterator[Message]:
    """Receive messages, for as long as they are asked for.

    Args:
        stream: A blocking binary stream.
        most: The greatest length of all frames together, in bytes.

    Raises:
        WireError: The stream ended, or a frame is too long or no JSON object.
    """
    while True:
        (length,) = _LENGTH.unpack(read_exactly(stream, _LENGTH.size))
        if length > most:
            raise WireError(f"a frame of {length} bytes, allowed are {most}")
        most -= length
        yield _parse(read_exactly(stream, length))


def _parse(frame: bytes) -> Message:
    try:
        message = json.loads(frame)
    except (ValueError, RecursionError) as error:
        raise WireError("a frame that is not JSON") from error
    if not isinstance(message, dict):
        raise WireError("a frame that is not a JSON object")
    return message


def read_exactly(stream: BinaryIO, size: int) -> bytes:
    """Receive `size` bytes.

    Raises:
        WireError: The stream ended before.
    """
    data = stream.read(size)
    if len(data) != size:
        raise WireError(f"the stream ended after {len(data)} of {size} bytes")
    return data


def pack_document(document: Document) -> Message:
    """A document as a JSON object."""
    return {
        "text": document.text,
        "source": document.source,
        "title": document.title,
        "id": document.id,
        "language": document.language,
        "contributor": document.contributor,
        "access": list(document.access),
        "metadata": dict(document.metadata),
        "pages": [[page.number, page.start, page.end] for page in document.pages],
    }


def unpack_document(packed: object) -> Document:
    """The document in a JSON object that nobody vouches for.

    Raises:
        WireError: A field that is missing or has the wrong type, or pages that do not lie in order
            inside the text.
    """
    if not isinstance(packed, dict):
        raise WireError("a document that is not a JSON object")
    text = _text(packed, "text")
    names = ("source", "title", "id", "language", "contributor")
    return Document(
        text=text,
        access=_texts(packed.get("access")),
        metadata=_metadata(packed.get("metadata")),
        pages=_pages(packed.get("pages"), len(text)),
        **{name: _text(packed, name) for name in names},
    )


def unpack_view(packed: object) -> Seen:
    """What was seen, in a JSON object that nobody vouches for.

    Raises:
        WireError: It is neither a picture in PNG nor boxes on the page.
    """
    if not isinstance(packed, dict):
        raise WireError("a view that is not a JSON object")
    if "picture" in packed:
        return Seen(picture=_picture(packed["picture"]))
    boxes = packed.get("boxes")
    if not isinstance(boxes, list) or not isinstance(packed.get("complete"), bool):
        raise WireError("a view without a picture and without boxes")
    return Seen(boxes=tuple(_box(box) for box in boxes), complete=packed["complete"])


def pack_error(error: DocumentError) -> Message:
    """A reason as a JSON object."""
    return {"message": error.message[:500], "hint": error.hint[:500]}


def unpack_error(packed: object) -> DocumentError:
    """The reason in a JSON object that nobody vouches for, on one line.

    Raises:
        WireError: A field that is missing or has the wrong type.
    """
    if not isinstance(packed, dict):
        raise WireError("an error that is not a JSON object")
    message, hint = (" ".join(_text(packed, key)[:500].split()) for key in ("message", "hint"))
    return DocumentError(message, hint=hint)


def _picture(value: object) -> bytes:
    try:
        picture = base64.b64decode(value if isinstance(value, str) else "", validate=True)
    except ValueError as error:
        raise WireError("a picture that is not base64") from error
    if not picture.startswith(b"\x89PNG\r\n\x1a\n"):
        raise WireError("a picture that is not PNG")
    return picture


def _box(value: object) -> Box:
    if not isinstance(value, list) or len(value) != 4:
        raise WireError("a box that is not four numbers")
    if any(type(edge) not in (int, float) or not 0 <= edge <= 1 for edge in value):
        raise WireError("a box that does not lie on the page")
    left, top, right, bottom = map(float, value)
    return left, top, right, bottom


def _text(packed: Mapping[str, object], name: str) -> str:
    return _sound(packed.get(name), name)


def _sound(value: object, name: str) -> str:
    """`value` if it is text that can be encoded; JSON escapes can smuggle lone surrogates in."""
    if not isinstance(value, str) or _SURROGATE.search(value):
        raise WireError(f"a document whose {name} is not text")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise WireError("a document whose access is not a list of texts")
    return tuple(_sound(item, "access") for item in value)


def _metadata(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise WireError("a document whose metadata is not text to text")
    return {_sound(name, "metadata"): _sound(item, "metadata") for name, item in value.items()}


def _pages(value: object, length: int) -> tuple[Page, ...]:
    if not isinstance(value, list):
        raise WireError("a document whose pages are not a list")
    pages = tuple(_page(item) for item in value)
    edges = [edge for page in pages for edge in (page.start, page.end)]
    if edges != sorted(edges) or (edges and not 0 <= edges[0] <= edges[-1] <= length):
        raise WireError("a document whose pages do not lie in order inside its text")
    return pages


def _page(value: object) -> Page:
    if not isinstance(value, list) or len(value) != 3 or any(type(n) is not int for n in value):
        raise WireError("a page that is not three whole numbers")
    return Page(*value)
