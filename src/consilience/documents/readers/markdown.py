"""Markdown, kept verbatim like plain text; only its title is looked for.

The source is not rendered: a citation must show the characters that stand in the file.
"""

import re

from consilience.documents.decoding import decode_text
from consilience.documents.document import Document
from consilience.documents.readers.base import Extract, RawFile, finish

_FENCE = re.compile(r" {0,3}(```+|~~~+)")
_HASH = re.compile(r" {0,3}#{1,6}[ \t]+(.*?)[ \t]*#*[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_FRONT_TITLE = re.compile(r"title:[ \t]*(.+)$", re.IGNORECASE)
_SEARCHED = 100_000  # characters; a title that comes later is not the document's


def read_markdown(file: RawFile) -> list[Document]:
    """The source text of the file, character for character, titled by its first heading."""
    text = decode_text(file.data)
    return finish(file, Extract("markdown", text, _title(text[:_SEARCHED].splitlines())))


def _title(lines: list[str]) -> str:
    """The title of the front matter, or the first heading outside code, or nothing."""
    front = _front_matter(lines)
    for line in lines[:front]:
        if match := _FRONT_TITLE.match(line):
            return match.group(1).strip(" \"'")
    return _first_heading(lines[front:])


def _front_matter(lines: list[str]) -> int:
    """How many lines at the top are YAML between two lines of three dashes."""
    if not lines or lines[0].strip() != "---":
        return 0
    ends = (i + 1 for i, line in enumerate(lines) if i and line.strip() in ("---", "..."))
    return next(ends, 0)


def _first_heading(lines: list[str]) -> str:
    fence = ""
    before = ""
    for line in lines:
        if match := _FENCE.match(line):
            fence = _toggled(fence, match.group(1))
        elif not fence and (match := _HASH.match(line)) and match.group(1):
            return match.group(1)
        elif not fence and before and _UNDERLINE.match(line):
            return before
        before = "" if fence or match else line.strip()
    return ""


def _toggled(fence: str, mark: str) -> str:
    """The fence that is open after a line with `mark`; empty when it closed."""
    if not fence:
        return mark
    return "" if mark.startswith(fence) else fence
