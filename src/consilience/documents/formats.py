"""Which formats can be read, by the suffix of a file's name.

Only names live here, so that the side that walks folders and starts readers may import them without
any parser. What the bytes of a file really are is for `recognition` to say.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from consilience.errors import DocumentError

Format = Literal[
    "pdf", "docx", "pptx", "workbook", "html", "markdown", "text", "table", "records", "graph"
]

SUFFIXES: Mapping[str, Format] = MappingProxyType(
    {
        ".pdf": "pdf",
        ".docx": "docx",
        ".pptx": "pptx",
        ".xlsx": "workbook",
        ".xlsm": "workbook",
        ".xls": "workbook",
        ".ods": "workbook",
        ".html": "html",
        ".htm": "html",
        ".md": "markdown",
        ".markdown": "markdown",
        ".txt": "text",
        ".csv": "table",
        ".tsv": "table",
        ".json": "records",
        ".jsonl": "records",
        ".ttl": "graph",
        ".nt": "graph",
        ".nq": "graph",
        ".trig": "graph",
        ".jsonld": "graph",
        ".rdf": "graph",
        ".owl": "graph",
        ".srj": "graph",
        ".srx": "graph",
    }
)
"""The closed table of what can be read: the suffix in lower case, and the format it stands for."""

BINARY: frozenset[Format] = frozenset({"pdf", "docx", "pptx", "workbook"})


def known_suffixes() -> str:
    """The suffixes that can be read, as one line for a hint."""
    return "readable: " + " ".join(SUFFIXES)


def format_of_name(suffix: str) -> Format:
    """The format that a suffix stands for.

    Raises:
        DocumentError: No reader for this suffix.
    """
    known = SUFFIXES.get(suffix.lower())
    if known is None:
        raise DocumentError(
            f"unknown format: no reader for {suffix or 'a name without a suffix'}",
            hint=known_suffixes(),
        )
    return known
