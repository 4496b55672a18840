"""Word documents: order, tables, the things that python-docx passes over, and titles."""

from typing import Any

from tests.documents import samples
from tests.documents.conftest import Read, Refusal


def _ward(word: Any) -> None:
    word.add_heading("Visiting hours", level=1)
    word.add_paragraph(samples.ENGLISH)
    table = word.add_table(rows=0, cols=3)
    for row in samples.FEES:
        for cell, value in zip(table.add_row().cells, row, strict=True):
            cell.text = str(value)
    word.add_paragraph("第一条", style="List Number")
    word.add_paragraph("第二条", style="List Number")
    word.add_paragraph(samples.CHINESE)


def _text(inner: str) -> str:
    return f"<w:p><w:r><w:t>{inner}</w:t></w:r></w:p>"


def _cell(text: str, properties: str = "") -> str:
    return f"<w:tc><w:tcPr>{properties}</w:tcPr>{_text(text)}</w:tc>"


def test_paragraphs_and_tables_in_document_order(read: Read) -> None:
    document = read("ward.docx", samples.docx(_ward))
    assert document.text == (
        f"Visiting hours\n\n{samples.ENGLISH.strip()}\n\n{samples.FEE_LINES}\n\n"
        f"第一条\n第二条\n\n{samples.CHINESE}"
    )
    assert (document.title, document.language, document.pages) == ("Visiting hours", "zh", ())


def test_the_stated_title_comes_before_the_first_heading(read: Read) -> None:
    def build(word: Any) -> None:
        word.core_properties.title = "员工手册"
        word.add_heading("Chapter one")

    assert read("book.docx", samples.docx(build)).title == "员工手册"


def test_what_people_see_is_read_and_what_they_do_not_see_is_not(read: Read) -> None:
    body = (
        "<w:sdt><w:sdtContent>" + _text("in a content control") + "</w:sdtContent></w:sdt>"
        "<w:p><w:r><w:t>kept</w:t></w:r><w:ins><w:r><w:t> inserted</w:t></w:r></w:ins>"
        "<w:del><w:r><w:delText> deleted</w:delText></w:r></w:del>"
        "<w:moveFrom><w:r><w:t> moved away</w:t></w:r></w:moveFrom>"
        "<w:r><w:instrText>PAGE</w:instrText><w:tab/><w:t>after tab</w:t><w:br/>"
        "<w:t>next line</w:t></w:r></w:p>"
        "<w:p><w:r><w:t>anchor</w:t><mc:AlternateContent><mc:Choice><w:txbxContent>"
        + _text("in a box")
        + "</w:txbxContent></mc:Choice><mc:Fallback><w:txbxContent>"
        + _text("in a box")
        + "</w:txbxContent></mc:Fallback></mc:AlternateContent></w:r></w:p>"
    )
    assert read("seen.docx", samples.word_body(body)).text == (
        "in a content control\n\nkept inserted after tab\nnext line\n\nanchor\n\nin a box"
    )


def test_footnotes_stand_at_the_end(read: Read) -> None:
    file = samples.word_body(_text("The fee is five yuan."))
    notes = '<w:footnotes xmlns:w="{}"><w:footnote>{}</w:footnote></w:footnotes>'
    space = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    file = samples.with_member(
        file, "word/footnotes.xml", notes.format(space, _text("Waived for pupils.")).encode()
    )
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/footnotes"
    relations = samples.member(file, "word/_rels/document.xml.rels").replace(
        b"</Relationships>",
        f'<Relationship Id="n1" Type="{kind}" Target="footnotes.xml"/></Relationships>'.encode(),
    )
    types = samples.member(file, "[Content_Types].xml").replace(
        b"</Types>",
        b'<Override PartName="/word/footnotes.xml" ContentType="application/vnd.openxmlformats'
        b'-officedocument.wordprocessingml.footnotes+xml"/></Types>',
    )
    file = samples.with_member(file, "word/_rels/document.xml.rels", relations)
    file = samples.with_member(file, "[Content_Types].xml", types)
    assert read("notes.docx", file).text == "The fee is five yuan.\n\nWaived for pupils."


def test_merged_cells_stand_in_every_row_and_push_columns(read: Read) -> None:
    start, go_on, wide = '<w:vMerge w:val="restart"/>', "<w:vMerge/>", '<w:gridSpan w:val="2"/>'
    rows = (
        _cell("Ward") + _cell("Day") + _cell("Hours"),
        _cell("Cardiology", start) + _cell("Monday") + _cell("9 to 5"),
        _cell("", go_on) + _cell("closed on Sunday", wide),
    )
    table = "<w:tbl>" + "".join(f"<w:tr>{row}</w:tr>" for row in rows) + "</w:tbl>"
    assert read("merged.docx", samples.word_body(table)).text == (
        "Ward: Cardiology; Day: Monday; Hours: 9 to 5\nWard: Cardiology; Day: closed on Sunday"
    )


def test_a_form_of_two_columns_is_names_and_values(read: Read) -> None:
    rows = "".join(
        f"<w:tr>{_cell(name)}{_cell(value)}</w:tr>"
        for name, value in (("姓名：", "李娜"), ("科室", "心内科"))
    )
    assert read("form.docx", samples.word_body(f"<w:tbl>{rows}</w:tbl>")).text == (
        "姓名: 李娜\n科室: 心内科"
    )


def test_a_marked_header_row_is_believed(read: Read) -> None:
    mark = "<w:trPr><w:tblHeader/></w:trPr>"
    rows = (
        f"<w:tr>{mark}{_cell('Term')}{_cell('Meaning')}</w:tr>"
        f"<w:tr>{_cell('APR')}{_cell('yearly rate')}</w:tr>"
    )
    assert read("terms.docx", samples.word_body(f"<w:tbl>{rows}</w:tbl>")).text == (
        "Term: APR; Meaning: yearly rate"
    )


def test_what_cannot_be_opened_says_why(refusal: Refusal) -> None:
    sound = samples.docx(_ward)
    cut = refusal("cut.docx", sound[: len(sound) // 2])
    assert cut.message == "damaged: not a complete zip archive (File is not a zip file)"
    assert cut.hint == "save or fetch the file again"
    assert refusal("blank.docx", samples.docx(lambda word: None)).message == "holds no text"
