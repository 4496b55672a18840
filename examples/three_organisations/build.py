"""Build the binary documents of the example corpus from their plain-text manuscripts.

Why manuscripts.  A reviewer can read and diff Markdown and CSV, not a .docx.  So the
repository keeps, for each organisation folder beside this file, the manuscripts as the
source and the built documents as a convenience:

    manuscripts/NAME.docx.md         -> documents/NAME.docx   (python-docx)
    manuscripts/NAME.pdf.md          -> documents/NAME.pdf    (reportlab)
    manuscripts/NAME.xlsx.csv        -> documents/NAME.xlsx   (openpyxl, one sheet)
    manuscripts/NAME.xlsx.SHEET.csv  -> documents/NAME.xlsx   (one sheet per file, by name)

Manuscript Markdown is a small subset: `#` and `##` headings, paragraphs, `- ` items and
pipe tables.  It is parsed once into blocks, and each writer turns blocks into its format.

Why the same bytes every time.  `--check` compares a fresh build with the files on disk,
so nothing may depend on the clock, the file system or the zlib at hand: dates are fixed,
zip members are stored uncompressed with one timestamp, and PDF streams are uncompressed.

Why a CID font.  Chinese PDF text uses Adobe's predefined `STSong-Light`: no font file has
to be shipped, and readers map its character codes back to Unicode by a standard table.
See `SongFont` for the one trap that comes with a font that is not embedded.

Usage: python examples/three_organisations/build.py [--check]
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import docx
import openpyxl
from docx.enum.style import WD_STYLE_TYPE
from openpyxl.styles import Font
from reportlab import platypus
from reportlab.lib import colors, pagesizes
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont

HERE = Path(__file__).resolve().parent
DATE = datetime(2025, 1, 1)
SUFFIXES = (".docx", ".pdf", ".xlsx")
CJK = re.compile(r"[\u3000-\u303f\u3400-\u9fff\uff00-\uffef]")
UNUSED_PARTS = ("stylesWithEffects", "thumbnail")
RULE_ROW = re.compile(r"\|[\s:|-]+\|")
MODIFIED = re.compile(rb"(<dcterms:modified[^>]*>)[^<]*")
TEXT_WIDTH, TEXT_HEIGHT = (side - 50 * mm for side in pagesizes.A4)


# ---------------------------------------------------------------- manuscripts to blocks


@dataclass(frozen=True)
class Block:
    """One heading, paragraph or list item (`text`), or one table (`rows`)."""

    kind: str  # "h1", "h2", "p", "li" or "table"
    text: str = ""
    rows: tuple[tuple[str, ...], ...] = ()


def kind_of(line: str) -> str:
    """Return the kind of block that a manuscript line belongs to; "" for a blank line."""
    marks = {"# ": "h1", "## ": "h2", "- ": "li", "|": "table"}
    found = (kind for mark, kind in marks.items() if line.startswith(mark))
    return next(found, "p" if line else "")


def join_lines(lines: list[str]) -> str:
    """Join the lines of one paragraph, with no space where Chinese meets Chinese."""
    text = lines[0]
    for line in lines[1:]:
        text += ("" if CJK.match(text[-1]) and CJK.match(line[0]) else " ") + line
    return text


def table_rows(lines: list[str]) -> tuple[tuple[str, ...], ...]:
    """Split pipe-table lines into cells, leaving out the rule under the header."""
    kept = (line for line in lines if not RULE_ROW.fullmatch(line))
    return tuple(tuple(cell.strip() for cell in line.strip("|").split("|")) for line in kept)


def parse(markdown: str) -> Iterator[Block]:
    """Yield the blocks of a manuscript."""
    lines = [line.strip() for line in markdown.splitlines()]
    for kind, group in groupby(lines, kind_of):
        if kind == "table":
            yield Block(kind, rows=table_rows(list(group)))
        elif kind == "p":
            yield Block(kind, join_lines(list(group)))
        elif kind:
            yield from (Block(kind, line.lstrip("#- ")) for line in group)


def title_of(blocks: list[Block]) -> str:
    """Return the first heading of a manuscript."""
    return next((block.text for block in blocks if block.kind == "h1"), "")


# ---------------------------------------------------------------------- docx and xlsx


def normalised(package: bytes) -> bytes:
    """Rewrite an Office zip with fixed timestamps, no compression and a fixed core date."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(package)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "docProps/core.xml":
                data = MODIFIED.sub(rb"\g<1>" + f"{DATE.isoformat()}Z".encode(), data)
            member = zipfile.ZipInfo(name, DATE.timetuple()[:6])
            member.create_system = 3  # the zip would else record Windows or Unix
            new.writestr(member, data)
    return out.getvalue()


def set_properties(properties: Any, title: str) -> None:
    """Fix the core properties that would else hold this machine's clock and user."""
    properties.title = title
    properties.author = properties.creator = "Consilience example corpus"
    properties.created = properties.modified = DATE


def add_docx_block(document: Any, block: Block) -> None:
    """Append one block to a python-docx document."""
    if block.kind == "table":
        table = document.add_table(len(block.rows), len(block.rows[0]), style="Table Grid")
        for row, cells in zip(table.rows, block.rows, strict=True):
            for cell, text in zip(row.cells, cells, strict=True):
                cell.text = text
    elif block.kind in ("h1", "h2"):
        document.add_heading(block.text, level=int(block.kind[1]))
    else:
        document.add_paragraph(block.text, style="List Bullet" if block.kind == "li" else None)


def slim(document: Any) -> None:
    """Drop what python-docx's template brings along unused: nine tenths of the file."""
    for style in list(document.styles):
        if style.type == WD_STYLE_TYPE.TABLE and style.name not in ("Normal Table", "Table Grid"):
            style.delete()
    for relations in (document.part.rels, document.part.package.rels):
        for key in [key for key, rel in relations.items() if rel.reltype.endswith(UNUSED_PARTS)]:
            del relations[key]


def build_docx(sources: list[Path]) -> bytes:
    """Build a Word document from one Markdown manuscript."""
    blocks = list(parse(sources[0].read_text("utf-8")))
    document, out = docx.Document(), io.BytesIO()
    slim(document)
    set_properties(document.core_properties, title_of(blocks))
    for block in blocks:
        add_docx_block(document, block)
    document.save(out)
    return normalised(out.getvalue())


def cell_value(text: str) -> str | int | float:
    """Return a number where it prints back as the same text (not `007` or `12.50`)."""
    for number in (int, float):
        try:
            if str(number(text)) == text and text not in ("nan", "inf", "-inf"):
                return number(text)
        except ValueError:
            continue
    return text


def add_sheet(book: Any, source: Path) -> None:
    """Append one sheet from a CSV manuscript, with a bold header row."""
    parts = source.name.removesuffix(".csv").split(".xlsx.")
    sheet = book.create_sheet(parts[1] if len(parts) > 1 else "Sheet1")
    with source.open(encoding="utf-8-sig", newline="") as lines:
        for row in csv.reader(lines):
            sheet.append([cell_value(cell) for cell in row])
    for cell in sheet[1]:
        cell.font = Font(bold=True)
        sheet.column_dimensions[cell.column_letter].width = 24


def build_xlsx(sources: list[Path]) -> bytes:
    """Build a workbook with one sheet for each CSV manuscript."""
    book, out = openpyxl.Workbook(), io.BytesIO()
    book.remove(book.active)
    set_properties(book.properties, sources[0].name.split(".")[0])
    for source in sources:
        add_sheet(book, source)
    book.save(out)
    return normalised(out.getvalue())


# ---------------------------------------------------------------------------------- pdf


class SongFont(UnicodeCIDFont):  # type: ignore[misc]
    """`STSong-Light` that never draws one character alone.

    Where the machine has no Chinese font, PDFium gives each Chinese character an empty
    box, takes a run of a single one to be empty, and leaves it out of the extracted text.
    A space after the character gives the run a width.
    """

    def formatForPdf(self, text: str) -> str:  # noqa: N802 - reportlab's name
        """Encode a run of text for a PDF content stream."""
        return str(super().formatForPdf(text + " " if len(text) == 1 else text))


def pdf_font(text: str) -> str:
    """Return the font for a document: the Chinese CID font only where it is needed."""
    if not CJK.search(text):
        return "Helvetica"
    pdfmetrics.registerFont(SongFont("STSong-Light"))
    return "STSong-Light"


def pdf_styles(font: str) -> dict[str, Any]:
    """Return a paragraph style for each kind of block; Chinese wraps at any character."""
    wrap = "CJK" if font == "STSong-Light" else None
    look = {"h1": (18, 10), "h2": (13.5, 8), "p": (11, 8), "li": (11, 4), "cell": (9.5, 0)}
    styles = {
        kind: ParagraphStyle(
            kind, fontName=font, fontSize=size, leading=1.5 * size, spaceAfter=after, wordWrap=wrap
        )
        for kind, (size, after) in look.items()
    }
    styles["h2"].spaceBefore, styles["h2"].keepWithNext = 8, 1
    styles["li"].leftIndent, styles["li"].bulletIndent = 14, 4
    return styles


def column_widths(rows: tuple[tuple[str, ...], ...]) -> list[float]:
    """Share the text width by each column's longest cell, within bounds."""
    columns = zip(*rows, strict=True)
    longest = (max(len(cell.encode("gb18030")) for cell in column) for column in columns)
    shares = [min(max(length, 8), 40) for length in longest]
    return [TEXT_WIDTH * share / sum(shares) for share in shares]


def pdf_table(rows: tuple[tuple[str, ...], ...], style: Any) -> Any:
    """Return a ruled table whose header repeats on each page."""
    cells = [[platypus.Paragraph(escape(cell), style) for cell in row] for row in rows]
    look = [
        ("GRID", (0, 0), (-1, -1), 0.5, colors.grey),
        ("BACKGROUND", (0, 0), (-1, 0), colors.whitesmoke),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
    ]
    after = {"spaceBefore": 4, "spaceAfter": 10}
    return platypus.Table(cells, column_widths(rows), style=look, repeatRows=1, **after)


def pdf_flowable(block: Block, styles: dict[str, Any]) -> Any:
    """Return the reportlab flowable for one block."""
    if block.kind == "table":
        return pdf_table(block.rows, styles["cell"])
    bullet = "\u2022" if block.kind == "li" else None
    return platypus.Paragraph(escape(block.text), styles[block.kind], bulletText=bullet)


def footer(font: str) -> Callable[[Any, Any], None]:
    """Return a page callback that prints the page number."""
    pattern = "Page {}" if font == "Helvetica" else "\u7b2c {} \u9875"

    def draw(canvas: Any, document: Any) -> None:
        canvas.setFont(font, 9)
        canvas.drawCentredString(pagesizes.A4[0] / 2, 12 * mm, pattern.format(document.page))

    return draw


def pdf_document(out: io.BytesIO, title: str, font: str) -> Any:
    """Return an A4 document that ends each page, in reading order too, with its number."""
    fixed = {"title": title, "invariant": 1, "pageCompression": 0}
    document = platypus.BaseDocTemplate(out, pagesize=pagesizes.A4, **fixed)
    frame = platypus.Frame(25 * mm, 25 * mm, TEXT_WIDTH, TEXT_HEIGHT, 0, 0, 0, 0)
    document.addPageTemplates(platypus.PageTemplate(frames=[frame], onPageEnd=footer(font)))
    return document


def build_pdf(sources: list[Path]) -> bytes:
    """Build a PDF from one Markdown manuscript."""
    text = sources[0].read_text("utf-8")
    blocks, font, out = list(parse(text)), pdf_font(text), io.BytesIO()
    styles = pdf_styles(font)
    document = pdf_document(out, title_of(blocks), font)
    document.build([pdf_flowable(block, styles) for block in blocks])
    return out.getvalue()


# ------------------------------------------------------------------------- command line


BUILDERS = {".docx": build_docx, ".pdf": build_pdf, ".xlsx": build_xlsx}


def target_of(manuscript: Path) -> Path:
    """Return the document that a manuscript is built into."""
    name = ".".join(manuscript.name.split(".")[:2])
    return manuscript.parent.parent / "documents" / name


def build(target: Path, sources: list[Path]) -> bytes:
    """Build one document; an error names it."""
    try:
        return BUILDERS[target.suffix](sources)
    except Exception as error:
        error.add_note(f"while building {target}")
        raise


def fresh_documents(root: Path) -> Iterator[tuple[Path, bytes]]:
    """Build every document of every organisation folder under `root`."""
    manuscripts = sorted(root.glob("*/manuscripts/*"), key=lambda path: (target_of(path), path))
    for target, sources in groupby(manuscripts, target_of):
        if target.suffix in SUFFIXES:
            yield target, build(target, list(sources))


def differing(fresh: dict[Path, bytes], root: Path) -> list[Path]:
    """Return documents that are missing, differ from a fresh build or have no manuscript."""
    changed = {path for path, data in fresh.items() if not holds(path, data)}
    built = {path for path in root.glob("*/documents/*") if path.suffix in SUFFIXES}
    return sorted(changed | (built - fresh.keys()))


def holds(path: Path, data: bytes) -> bool:
    """Say whether the file at `path` exists and holds exactly `data`."""
    return path.is_file() and path.read_bytes() == data


def write(fresh: dict[Path, bytes]) -> None:
    """Write the documents whose bytes changed."""
    for path, data in fresh.items():
        if not holds(path, data):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
            print(path.relative_to(HERE))


def main() -> int:
    """Build the corpus, or with `--check` say which documents are out of date."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if stale")
    check = parser.parse_args().check
    fresh = dict(fresh_documents(HERE))
    if not check:
        write(fresh)
        return 0
    stale = differing(fresh, HERE)
    print(*(path.relative_to(HERE) for path in stale), sep="\n", end="\n" if stale else "")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
