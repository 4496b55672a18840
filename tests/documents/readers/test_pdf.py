"""PDF: paragraphs, tables, pages, and the files that cannot be opened."""

import pytest

from tests.documents import samples
from tests.documents.conftest import Read, Refusal


def test_paragraphs_tables_and_pages(read: Read) -> None:
    pages = [[samples.ENGLISH, samples.FEES, "The end."], [samples.CHINESE, samples.WARDS]]
    document = read("ward.pdf", samples.pdf(pages, title="Opening hours"))
    first, second = (document.text[page.start : page.end] for page in document.pages)
    assert first == f"{samples.ENGLISH.strip()}\n\n{samples.FEE_LINES}\n\nThe end."
    assert second == f"{samples.CHINESE}\n\n{samples.WARD_LINES}"
    assert document.text == f"{first}\n\n{second}"
    assert [page.number for page in document.pages] == [1, 2]
    assert document.title == "Opening hours"
    assert document.metadata == {"format": "pdf"}
    assert document.source == "handbook/ward.pdf"


def test_a_blank_page_keeps_its_number(read: Read) -> None:
    import io

    import pypdf

    one = pypdf.PdfReader(io.BytesIO(samples.lines_pdf(["only page"])))
    writer = pypdf.PdfWriter()
    writer.add_blank_page(612, 792)
    writer.add_page(one.pages[0])
    buffer = io.BytesIO()
    writer.write(buffer)
    document = read("two.pdf", buffer.getvalue())
    assert [(page.number, page.start, page.end) for page in document.pages] == [(2, 0, 9)]


def test_a_word_divided_at_a_line_end_is_whole(read: Read) -> None:
    lines = [
        "The committee has agreed to a long-term plan and will pub-",
        "lish it in spring, after which every party to the long-",
        "term plan signs.",
    ]
    assert read("plan.pdf", samples.lines_pdf(lines)).text == (
        "The committee has agreed to a long-term plan and will publish it in spring, "
        "after which every party to the long-term plan signs."
    )


def test_a_hyphen_inside_a_name_or_a_range_stays(read: Read) -> None:
    lines = ["All of the rooms on the second floor, from room A-", "B to room 3-", "4, are open."]
    assert read("rooms.pdf", samples.lines_pdf(lines)).text.startswith(
        "All of the rooms on the second floor, from room A-B to room 3-"
    )


def test_short_lines_stay_lines(read: Read) -> None:
    lines = ["Name: Li Na", "Ward: Cardiology on the second floor", "Phone: 5512"]
    assert read("card.pdf", samples.lines_pdf(lines)).text == "\n\n".join(lines)


def test_a_large_first_line_is_the_title(read: Read) -> None:
    content = b"BT /F 24 Tf 72 720 Td (Visiting hours) Tj /F 12 Tf 0 -40 Td (From nine.) Tj ET"
    document = read("v.pdf", samples.raw_pdf(content + b" BT /F 12 Tf 72 600 Td (To five.) Tj ET"))
    assert document.title == "Visiting hours"


def test_without_a_title_the_name_is_one(read: Read) -> None:
    assert read("plain.pdf", samples.lines_pdf(["one line"])).title == "plain"


def test_what_cannot_be_opened_says_why(refusal: Refusal) -> None:
    sound = samples.pdf([[samples.ENGLISH]])
    encrypted = refusal("secret.pdf", samples.encrypted_pdf())
    assert encrypted.message == "encrypted: it opens only with a password"
    assert encrypted.hint == "save it without a password"
    assert refusal("half.pdf", b"%PDF-1.7\n").message.startswith("damaged: not a complete PDF")
    assert refusal("scan.pdf", samples.raw_pdf(b"0 0 9 9 re f")).message == (
        "holds no text: perhaps a scan; run character recognition (OCR) over it first"
    )
    assert sound.startswith(b"%PDF")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_file_gives_text_or_a_reason(
    read: Read, refusal: Refusal, share: float
) -> None:
    sound = samples.pdf([[samples.ENGLISH], [samples.CHINESE]])
    assert refusal("cut.pdf", sound[: int(len(sound) * share)]).message
