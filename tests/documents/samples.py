"""Small files of every format, made in memory by libraries other than those that read them.

Each maker returns the bytes of a file; what the tests expect of it stands in the tests.
"""

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence

Paragraph = str
Rows = Sequence[Sequence[object]]

ENGLISH = "The ward opens at 9:00 and closes at 20:00 on every day of the year. " * 4
CHINESE = "病房每天九点开放，二十点关闭，节假日照常。" * 8
FEES: Rows = (("Service", "Fee", "Since"), ("Copy", 5, "2024"), ("X-ray", 120, "2025"))
FEE_LINES = "Service: Copy; Fee: 5; Since: 2024\nService: X-ray; Fee: 120; Since: 2025"
WARDS: Rows = (("科室", "电话"), ("心内科", "5512"), ("儿科", "5513"))
WARD_LINES = "科室: 心内科; 电话: 5512\n科室: 儿科; 电话: 5513"


def pdf(pages: Sequence[Sequence[Paragraph | Rows]], *, title: str = "") -> bytes:
    """A PDF with one page for each list of paragraphs and tables."""
    from reportlab.lib.styles import ParagraphStyle
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont
    from reportlab.platypus import PageBreak, SimpleDocTemplate, Spacer, Table
    from reportlab.platypus import Paragraph as Flowing

    pdfmetrics.registerFont(UnicodeCIDFont("STSong-Light"))
    latin = ParagraphStyle("latin", fontName="Helvetica", leading=14)
    han = ParagraphStyle("han", fontName="STSong-Light", wordWrap="CJK", leading=18)
    story = []
    for page in pages:
        for block in page:
            if isinstance(block, str):
                story.append(Flowing(block, latin if block.isascii() else han))
            else:
                cells = [[str(cell) for cell in row] for row in block]
                story.append(Table(cells, style=[("FONT", (0, 0), (-1, -1), "STSong-Light")]))
            story.append(Spacer(1, 12))
        story.append(PageBreak())
    buffer = io.BytesIO()
    SimpleDocTemplate(buffer, title=title, invariant=True).build(story)
    return buffer.getvalue()


def raw_pdf(content: bytes, *, filters: bytes = b"") -> bytes:
    """A PDF of one page with a content stream written by hand."""
    objects = (
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R"
        b"/Resources<</Font<</F 5 0 R>>>>>>",
        b"<<%s/Length %d>>stream\n%s\nendstream" % (filters, len(content), content),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    )
    out = io.BytesIO(b"%PDF-1.4\n")
    out.seek(0, io.SEEK_END)
    places = []
    for number, body in enumerate(objects, start=1):
        places.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    xref = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    out.writelines(b"%010d 00000 n \n" % place for place in places)
    out.write(b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, xref))
    return out.getvalue()


def lines_pdf(lines: Sequence[str], *, pitch: int = 14, size: int = 12) -> bytes:
    """A PDF whose lines stand exactly as given, from the top of one page."""
    shown = [b"(%s) Tj T*" % line.replace("(", "\\(").encode("cp1252") for line in lines]
    return raw_pdf(b"BT /F %d Tf %d TL 72 720 Td %s ET" % (size, pitch, b" ".join(shown)))


def flate_bomb(size: int) -> bytes:
    """A PDF of less than a megabyte whose page unpacks to `size` bytes."""
    packer = zlib.compressobj(9)
    block = b" " * 1_000_000
    first = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    packed = first + again * (size // len(block) - 1) + packer.flush()
    return raw_pdf(packed, filters=b"/Filter/FlateDecode")


def encrypted_pdf() -> bytes:
    """A PDF that opens only with a password."""
    import pypdf

    writer = pypdf.PdfWriter(clone_from=io.BytesIO(lines_pdf(["secret"])))
    writer.encrypt("password", algorithm="AES-128" if _has_aes() else "RC4-128")
    buffer = io.BytesIO()
    writer.write(buffer)
    return buffer.getvalue()


def _has_aes() -> bool:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        return False
    return True


def docx(build: Callable[[object], None]) -> bytes:
    """A Word document that `build` fills through python-docx."""
    from docx import Document

    word = Document()
    build(word)
    buffer = io.BytesIO()
    word.save(buffer)
    return buffer.getvalue()


def with_member(archive: bytes, name: str, data: bytes, *, level: int = 9) -> bytes:
    """A zip archive with one member put in or replaced."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(archive)) as old,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as new,
    ):
        for info in old.infolist():
            if info.filename != name:
                new.writestr(info, old.read(info))
        new.writestr(name, data)
    return buffer.getvalue()


def member(archive: bytes, name: str) -> bytes:
    """One member of a zip archive."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return opened.read(name)


def word_body(inner: str) -> bytes:
    """A Word document whose body is written by hand."""
    main = (
        '<?xml version="1.0" encoding="UTF-8"?><w:document xmlns:w="http://schemas.openxmlformats.'
        'org/wordprocessingml/2006/main" xmlns:mc="http://schemas.openxmlformats.org/markup-'
        f'compatibility/2006"><w:body>{inner}</w:body></w:document>'
    )
    return with_member(docx(lambda word: None), "word/document.xml", main.encode())


def many_paragraphs(count: int) -> bytes:
    """A Word document of `count` empty paragraphs."""
    return word_body("<w:p/>" * count)


def pptx(slides: Sequence[tuple[str, str, Rows, str]]) -> bytes:
    """A presentation; a slide is a title, a text, a table and notes, each of which may be empty."""
    from pptx import Presentation
    from pptx.util import Inches

    show = Presentation()
    for title, text, rows, notes in slides:
        slide = show.slides.add_slide(show.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = text
        if rows:
            size = (len(rows), len(rows[0]), Inches(1), Inches(1), Inches(5), Inches(2))
            table = slide.shapes.add_table(*size).table
            for i, row in enumerate(rows):
                for j, cell in enumerate(row):
                    table.cell(i, j).text = str(cell)
        if notes:
            slide.notes_slide.notes_text_frame.text = notes
    buffer = io.BytesIO()
    show.save(buffer)
    return buffer.getvalue()


def xlsx(sheets: dict[str, Rows], *, merged: str = "") -> bytes:
    """A workbook with one sheet for each table."""
    from openpyxl import Workbook

    book = Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(list(row))
        if merged:
            sheet.merge_cells(merged)
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def ods(rows: Rows, *, encrypted: bool = False) -> bytes:
    """An OpenDocument spreadsheet of one sheet with cells of text."""
    cells = "".join(
        "<table:table-row>"
        + "".join(
            f'<table:table-cell office:value-type="string"><text:p>{cell}</text:p>'
            "</table:table-cell>"
            for cell in row
        )
        + "</table:table-row>"
        for row in rows
    )
    space = "urn:oasis:names:tc:opendocument:xmlns"
    content = (
        f'<?xml version="1.0" encoding="UTF-8"?><office:document-content '
        f'xmlns:office="{space}:office:1.0" xmlns:table="{space}:table:1.0" '
        f'xmlns:text="{space}:text:1.0"><office:body><office:spreadsheet>'
        f'<table:table table:name="Fees">{cells}</table:table>'
        "</office:spreadsheet></office:body></office:document-content>"
    )
    manifest = (
        f'<manifest:manifest xmlns:manifest="{space}:manifest:1.0"><manifest:file-entry '
        f'manifest:full-path="content.xml" manifest:media-type="text/xml">'
        f"{'<manifest:encryption-data/>' if encrypted else ''}"
        "</manifest:file-entry></manifest:manifest>"
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        archive.writestr("META-INF/manifest.xml", manifest)
        archive.writestr("content.xml", content)
    return buffer.getvalue()


def xls(rows: Rows, *, encrypted: bool = False) -> bytes:
    """A workbook of the nineties: BIFF8 records with one sheet, inside a compound file."""
    beginning = _record(0x0809, struct.pack("<HHHHII", 0x0600, 0x0005, 0, 0, 0, 0))
    beginning += _record(0x002F, bytes(54)) if encrypted else b""
    sheet = _record(0x0809, struct.pack("<HHHHII", 0x0600, 0x0010, 0, 0, 0, 0))
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            place = struct.pack("<HHH", i, j, 0)
            if isinstance(cell, str):
                text = struct.pack("<HB", len(cell), 1) + cell.encode("utf-16-le")
                sheet += _record(0x0204, place + text)
            else:
                sheet += _record(0x0203, place + struct.pack("<d", cell))
    sheet += _record(0x000A, b"")
    name = struct.pack("<BB", 4, 0) + b"Fees"
    start = len(beginning) + 4 + 6 + len(name) + 4
    bound = _record(0x0085, struct.pack("<IBB", start, 0, 0) + name)
    return _compound("Workbook", beginning + bound + _record(0x000A, b"") + sheet)


def _record(kind: int, body: bytes) -> bytes:
    return struct.pack("<HH", kind, len(body)) + body


def _compound(name: str, stream: bytes) -> bytes:
    """A compound file of version 3 with a single stream."""
    sector, end, free, fat = 512, 0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFD
    stream = stream.ljust(4096, b"\0")  # smaller ones would live in a second, finer table
    stream += b"\0" * (-len(stream) % sector)
    count = len(stream) // sector
    chain = [fat, end, *range(3, 2 + count), end]
    table = struct.pack("<128I", *chain, *[free] * (128 - len(chain)))
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16)
    header += struct.pack("<HHHHH6x", 0x3E, 3, 0xFFFE, 9, 6)
    header += struct.pack("<IIIIIIIII", 0, 1, 1, 0, 4096, end, 0, end, 0)
    header += struct.pack("<109I", 0, *[free] * 108)
    root = _entry("Root Entry", 5, child=1, start=end, size=0)
    directory = root + _entry(name, 2, child=free, start=2, size=len(stream))
    directory += _entry("", 0, child=free, start=0, size=0) * 2
    return header + table + directory + stream


def _entry(name: str, kind: int, *, child: int, start: int, size: int) -> bytes:
    text = (name + "\0").encode("utf-16-le") if name else b""
    links = struct.pack("<III", 0xFFFFFFFF, 0xFFFFFFFF, child)
    place = struct.pack("<IQ", start, size)
    kinds = struct.pack("<HBB", len(text), kind, 1)
    return text.ljust(64, b"\0") + kinds + links + bytes(36) + place


def jsonl(*records: object) -> bytes:
    """One line of JSON for each record."""
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def one_of_each() -> dict[str, bytes]:
    """A small sound file of every format, by a name for it."""
    page = f"<html><head><title>Ward</title></head><body><p>{CHINESE}</p><p>{ENGLISH}</p></body>"
    return {
        "a.pdf": pdf([[ENGLISH, FEES], [CHINESE]], title="Ward"),
        "a.docx": docx(lambda word: [word.add_heading("Ward"), word.add_paragraph(CHINESE)]),
        "a.pptx": pptx([("Ward", CHINESE, FEES, "notes")]),
        "a.xlsx": xlsx({"Fees": FEES, "电话": WARDS}),
        "a.ods": ods(FEES),
        "a.xls": xls(FEES),
        "a.html": page.encode(),
        "a.md": f"# Ward\n\n{CHINESE}\n\n{ENGLISH}\n".encode(),
        "a.txt": f"{CHINESE}\n{ENGLISH}\n".encode("gb18030"),
        "a.csv": "\n".join(",".join(map(str, row)) for row in (*FEES, *WARDS)).encode(),
        "a.json": json.dumps([{"text": CHINESE}, {"text": ENGLISH, "id": "b"}]).encode(),
        "a.jsonl": jsonl({"text": CHINESE}, {"text": ENGLISH, "access": ["staff"]}),
    }
