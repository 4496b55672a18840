"""The closed table of readers: which function reads which format. Nothing else names readers."""

from collections.abc import Mapping
from types import MappingProxyType

from consilience.documents.formats import Format
from consilience.documents.readers.base import Reader
from consilience.documents.readers.delimited import read_delimited
from consilience.documents.readers.docx import read_docx
from consilience.documents.readers.graph import read_graph
from consilience.documents.readers.html import read_html
from consilience.documents.readers.markdown import read_markdown
from consilience.documents.readers.pdf import read_pdf
from consilience.documents.readers.plain import read_plain
from consilience.documents.readers.pptx import read_pptx
from consilience.documents.readers.records import read_records
from consilience.documents.readers.workbook import read_workbook

READERS: Mapping[Format, Reader] = MappingProxyType(
    {
        "pdf": read_pdf,
        "docx": read_docx,
        "pptx": read_pptx,
        "workbook": read_workbook,
        "html": read_html,
        "markdown": read_markdown,
        "text": read_plain,
        "table": read_delimited,
        "records": read_records,
        "graph": read_graph,
    }
)
