"""The protocol between child and parent: everything survives it, and nothing bad gets through."""

import io
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilience.documents import Document, Page
from consilience.documents.wire import (
    WireError,
    pack_document,
    pack_error,
    read_exactly,
    read_frames,
    unpack_document,
    unpack_error,
    write_frame,
)
from consilience.errors import DocumentError

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    body = draw(text)
    edges = sorted(draw(st.lists(st.integers(0, len(body)), max_size=6)))
    pairs = zip(edges[::2], edges[1::2], strict=False)
    return Document(
        text=body,
        source=draw(text),
        title=draw(text),
        id=draw(text),
        language=draw(text),
        contributor=draw(text),
        access=tuple(draw(st.lists(text, max_size=3))),
        metadata=draw(st.dictionaries(text, text, max_size=3)),
        pages=tuple(Page(n, start, end) for n, (start, end) in enumerate(pairs, start=1)),
    )


def _frame(body: bytes) -> io.BytesIO:
    return io.BytesIO(struct.pack(">Q", len(body)) + body)


@given(st.lists(documents(), max_size=4))
def test_documents_come_back_equal(sent: list[Document]) -> None:
    stream = io.BytesIO()
    for document in sent:
        write_frame(stream, {"document": pack_document(document)})
    stream.seek(0)
    frames = read_frames(stream, most=len(stream.getvalue()))
    assert [unpack_document(next(frames)["document"]) for _ in sent] == sent


def test_errors_come_back_on_one_line() -> None:
    packed = pack_error(DocumentError("a\nb" + "x" * 999, hint="do\nthis"))
    error = unpack_error(packed)
    assert error.message.startswith("a bx")
    assert len(error.message) <= 500
    assert error.hint == "do this"


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (io.BytesIO(), "the stream ended after 0 of 8 bytes"),
        (io.BytesIO(struct.pack(">Q", 9) + b"{}"), "the stream ended after 2 of 9 bytes"),
        (io.BytesIO(struct.pack(">Q", 1 << 60)), f"a frame of {1 << 60} bytes, allowed are 1000"),
        (_frame(b"{"), "a frame that is not JSON"),
        (_frame(b"\xff"), "a frame that is not JSON"),
        (_frame(b"[" * 900), "a frame that is not JSON"),
        (_frame(b"[]"), "a frame that is not a JSON object"),
    ],
)
def test_broken_frames_are_refused(stream: io.BytesIO, message: str) -> None:
    with pytest.raises(WireError) as caught:
        next(read_frames(stream, most=1000))
    assert str(caught.value) == message


def test_the_allowance_is_for_all_frames_together() -> None:
    stream = io.BytesIO(_frame(b'{"a":1}').getvalue() * 3)
    frames = read_frames(stream, most=20)
    assert [next(frames), next(frames)] == [{"a": 1}, {"a": 1}]
    with pytest.raises(WireError, match="a frame of 7 bytes, allowed are 6"):
        next(frames)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": None}, "a document whose text is not text"),
        ({"text": "\ud800"}, "a document whose text is not text"),
        ({"title": 5}, "a document whose title is not text"),
        ({"access": "staff"}, "a document whose access is not a list of texts"),
        ({"access": [1]}, "a document whose access is not text"),
        ({"metadata": []}, "a document whose metadata is not text to text"),
        ({"metadata": {"a": 1}}, "a document whose metadata is not text"),
        ({"pages": {}}, "a document whose pages are not a list"),
        ({"pages": [[1, 0]]}, "a page that is not three whole numbers"),
        ({"pages": [[1, 0, True]]}, "a page that is not three whole numbers"),
        ({"pages": [[1, 0, 9]]}, "a document whose pages do not lie in order inside its text"),
        ({"pages": [[1, -1, 1]]}, "a document whose pages do not lie in order inside its text"),
        (
            {"pages": [[1, 0, 4], [2, 1, 2], [3, 4, 4]]},
            "a document whose pages do not lie in order inside its text",
        ),
    ],
)
def test_documents_that_do_not_add_up_are_refused(change: dict[str, Any], message: str) -> None:
    sound = pack_document(Document(text="four", source="s"))
    with pytest.raises(WireError) as caught:
        unpack_document(json.loads(json.dumps({**sound, **change})))
    assert str(caught.value) == message


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(WireError, match="a document that is not a JSON object"):
        unpack_document([])
    with pytest.raises(WireError, match="an error that is not a JSON object"):
        unpack_error("x")


def test_reading_exactly_says_how_much_came() -> None:
    with pytest.raises(WireError, match="the stream ended after 3 of 4 bytes"):
        read_exactly(io.BytesIO(b"abc"), 4)
