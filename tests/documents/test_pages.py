"""Pages as people see them: pictures, and boxes that hold exactly the characters asked for."""

import io
import os
import struct
from pathlib import Path

import pypdfium2
import pytest

from consilience.documents import Document, ReadLimits, read_document
from consilience.documents.limits import MEGABYTE
from consilience.documents.pages import draw_page, find_boxes
from consilience.documents.readers.page import MOST_PIXELS, NOWHERE, Piece, _of_piece
from consilience.documents.wire import Seen, WireError, unpack_view
from consilience.errors import DocumentError, UsageError
from tests.documents import samples

WRAPPED = (
    "The knowledge base must be re-indexed when the publi-",
    "cation changes, and all long-term readers are in-",
    "formed of it. The office opens at 9:00 on every",
    "working day.",
)


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "a.pdf"
    path.write_bytes(data)
    return path


def boxes(path: Path, document: Document, start: int, end: int) -> Seen:
    number = document.page_at(start)
    assert number is not None
    page = next(one for one in document.pages if one.number == number)
    text = document.text[page.start : page.end]
    return find_boxes(path, number, text=text, start=start - page.start, end=end - page.start)


def shown(data: bytes, number: int, seen: Seen) -> str:
    """The characters that stand in the boxes, as PDFium finds them by place."""
    page = pypdfium2.PdfDocument(io.BytesIO(data))[number - 1]
    width, height = page.get_size()
    text = page.get_textpage()
    found = []
    for left, top, right, bottom in seen.boxes:
        place = (left * width - 0.1, height * (1 - bottom), right * width + 0.1, height * (1 - top))
        found.append(text.get_text_bounded(*place))
    return "".join("".join(found).split())


@pytest.mark.parametrize(
    "data",
    [
        samples.pdf([[samples.ENGLISH, samples.FEES], [samples.CHINESE, samples.WARDS]]),
        samples.lines_pdf(WRAPPED),
        samples.lines_pdf(["Heading", "", "One line and more.", "Another: 2024"], pitch=30),
    ],
    ids=["report", "wrapped", "loose"],
)
def test_every_word_of_a_text_is_found_on_its_page(tmp_path: Path, data: bytes) -> None:
    path = written(tmp_path, data)
    (document,) = read_document(path, source="a")
    checked = 0
    for page in document.pages:
        start = page.start
        for word in document.text[page.start : page.end].replace("\n", " ").split(" "):
            end = start + len(word)
            assert document.text[start:end] == word
            if any(character.isalnum() for character in word) and checked < 60:
                seen = boxes(path, document, start, end)
                assert seen.complete, word
                on_page = shown(data, page.number, seen).replace("\x02", "-")
                assert word.rstrip(":;").replace("-", "") in on_page.replace("-", ""), word
                checked += 1
            start = end + 1
    assert checked > 5


def test_a_stretch_over_several_lines_has_a_box_for_each(tmp_path: Path) -> None:
    data = samples.lines_pdf(WRAPPED)
    path = written(tmp_path, data)
    (document,) = read_document(path, source="a")
    cited = "publication changes, and all long-term readers are informed"
    start = document.text.index(cited)
    seen = boxes(path, document, start, start + len(cited))
    assert (seen.complete, len(seen.boxes)) == (True, 3)
    assert [round(box[1], 3) for box in seen.boxes] == sorted(round(b[1], 3) for b in seen.boxes)
    assert all(
        0 <= left < right <= 1 and 0 <= top < bottom <= 1 for left, top, right, bottom in seen.boxes
    )


@pytest.mark.parametrize("hyphen", ["-", "\u2010", "\u00ad", "\x02"])
def test_a_hyphen_that_fell_out_is_passed_over_and_one_that_stayed_is_found(hyphen: str) -> None:
    placed = tuple((character, at) for at, character in enumerate(f"re{hyphen}pub{hyphen}lish"))
    assert _of_piece(Piece("re-publish", placed)) == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10]
    assert _of_piece(Piece("republisher", placed)) == [None] * 11
    assert _of_piece(Piece("rebuplish", placed)) == [None] * 9
    assert _of_piece(Piece("; ")) == [NOWHERE, NOWHERE]


def test_another_text_has_no_boxes(tmp_path: Path) -> None:
    path = written(tmp_path, samples.lines_pdf(["Some words of a page"]))
    right = find_boxes(path, 1, text="Some words of a page", start=5, end=10)
    assert (right.complete, len(right.boxes)) == (True, 1)
    for text in ("Some wards of a page", "Some words of a page.", "Some words of a pag", ""):
        assert find_boxes(path, 1, text=text, start=5, end=10) == Seen()
    assert find_boxes(path, 1, text="Some words of a page", start=10, end=5) == Seen()
    assert find_boxes(path, 1, text="Some words of a page", start=99, end=120) == Seen()
    blank = find_boxes(path, 1, text="Some words of a page", start=4, end=5)
    assert blank == Seen(), "a blank stands nowhere"


def test_boxes_follow_a_page_that_is_turned(tmp_path: Path) -> None:
    data = samples.lines_pdf(["Some words of a page"])
    turned = data.replace(b"/Type/Page/Parent", b"/Type/Page/Rotate 90/Parent")
    plain = find_boxes(written(tmp_path, data), 1, text="Some words of a page", start=0, end=4)
    path = written(tmp_path, turned)
    (document,) = read_document(path, source="a")
    seen = boxes(path, document, 0, 4)
    (left, top, right, bottom), (box,) = seen.boxes[0], plain.boxes
    assert (round(left, 2), round(right, 2)) == (round(1 - box[3], 2), round(1 - box[1], 2))
    assert (round(top, 2), round(bottom, 2)) == (round(box[0], 2), round(box[2], 2))


def test_a_picture_has_the_width_asked_for_or_less(tmp_path: Path) -> None:
    def size(data: bytes, width: int) -> tuple[int, int]:
        png = draw_page(written(tmp_path, data), 1, width=width)
        return struct.unpack(">II", png[16:24])  # type: ignore[return-value]

    plain = samples.lines_pdf(["x"])
    assert size(plain, 612) == (612, 792)
    assert size(plain, 100)[0] == 100
    width, height = size(plain.replace(b"[0 0 612 792]", b"[0 0 20 14000]"), 2000)
    assert width * height <= MOST_PIXELS * 1.01
    assert width < 200


@pytest.mark.parametrize(
    ("data", "page", "message"),
    [
        (samples.lines_pdf(["x"]), 2, "has no page 2: it has 1"),
        (samples.encrypted_pdf(), 1, "encrypted: it opens only with a password"),
        (b"no pdf at all", 1, "damaged: not a complete PDF .*"),
        (b"", 1, "holds no text: the file is empty .*"),
    ],
)
def test_what_cannot_be_shown_has_a_reason(
    tmp_path: Path, data: bytes, page: int, message: str
) -> None:
    path = written(tmp_path, data)
    with pytest.raises(DocumentError, match=f"^{message}$"):
        draw_page(path, page, width=100)
    with pytest.raises(DocumentError, match=f"^{message}$"):
        find_boxes(path, page, text="x", start=0, end=1)


def test_numbers_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for width in (0, 99, 2001):
        with pytest.raises(UsageError, match=f"a page of {width} pixels in width cannot be drawn"):
            draw_page(tmp_path, 1, width=width)
    with pytest.raises(UsageError, match="there is no page 0"):
        draw_page(tmp_path, 0, width=100)


@pytest.mark.skipif(os.name == "nt", reason="limits as POSIX has them")
def test_drawing_is_confined_like_reading(tmp_path: Path) -> None:
    bomb = written(tmp_path, samples.flate_bomb(600_000_000))
    limits = ReadLimits(memory_bytes=256 * MEGABYTE, cpu_seconds=3, wall_seconds=10)
    with pytest.raises(DocumentError):
        draw_page(bomb, 1, width=100, limits=limits)
    sound = written(tmp_path, samples.lines_pdf(["x"]))
    assert draw_page(sound, 1, width=100, limits=limits).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "packed",
    [
        None,
        {},
        {"picture": 7},
        {"picture": "%%%"},
        {"picture": "R0lGODlh"},
        {"boxes": [], "complete": 1},
        {"boxes": {}, "complete": True},
        {"boxes": [[0, 0, 1]], "complete": True},
        {"boxes": [[0, 0, 1, 1.5]], "complete": True},
        {"boxes": [[0, 0, 1, "1"]], "complete": True},
        {"boxes": [[0, 0, 1, True]], "complete": True},
        {"boxes": [[float("nan"), 0, 1, 1]], "complete": True},
    ],
)
def test_a_child_is_not_believed(packed: object) -> None:
    with pytest.raises(WireError):
        unpack_view(packed)
