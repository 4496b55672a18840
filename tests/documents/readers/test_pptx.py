"""Presentations: slides as pages, tables, groups and notes."""

import io

from tests.documents import samples
from tests.documents.conftest import Read, Refusal


def test_slides_are_pages_with_tables_and_notes(read: Read) -> None:
    slides = [
        ("Visiting hours", "From nine\nTo five", samples.FEES, "Say it slowly."),
        ("探视时间", "", samples.WARDS, ""),
    ]
    document = read("ward.pptx", samples.pptx(slides))
    first, second = (document.text[page.start : page.end] for page in document.pages)
    assert first == (
        f"Visiting hours\n\nFrom nine\nTo five\n\n{samples.FEE_LINES}\n\nSay it slowly."
    )
    assert second == f"探视时间\n\n{samples.WARD_LINES}"
    assert document.text == f"{first}\n\n{second}"
    assert document.title == "Visiting hours"


def test_text_inside_groups_is_read(read: Read) -> None:
    from pptx import Presentation
    from pptx.util import Inches

    show = Presentation()
    slide = show.slides.add_slide(show.slide_layouts[6])
    inner = slide.shapes.add_group_shape().shapes.add_group_shape()
    box = inner.shapes.add_textbox(Inches(1), Inches(1), Inches(2), Inches(1))
    box.text_frame.text = "组合里的字"
    buffer = io.BytesIO()
    show.save(buffer)
    document = read("group.pptx", buffer.getvalue())
    assert (document.text, document.title) == ("组合里的字", "group")


def test_slides_without_text_are_a_reason(refusal: Refusal) -> None:
    assert refusal("blank.pptx", samples.pptx([("", "", (), "")])).message == "holds no text"
