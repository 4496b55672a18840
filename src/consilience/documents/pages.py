"""Pages of a PDF as people see them: their pictures, and where cited characters stand on them.

Both are made in the confined child process in which documents are read, out of the bytes of a file
and never of its path. Knows no format but PDF, and keeps nothing.
"""

from pathlib import Path

from consilience.documents.limits import MEGABYTE, ReadLimits
from consilience.documents.read import opened
from consilience.documents.sandbox import VIEWS, Request, View
from consilience.documents.wire import Seen
from consilience.errors import UsageError

VIEW_LIMITS = ReadLimits(memory_bytes=512 * MEGABYTE, cpu_seconds=20, wall_seconds=30)
"""What one view may cost."""

WIDTHS = range(100, 2001)
"""How wide a picture may be, in pixels."""


def draw_page(path: Path, page: int, *, width: int, limits: ReadLimits = VIEW_LIMITS) -> bytes:
    """The picture of a page, as PNG.

    Args:
        path: A PDF.
        page: Its number, from 1.
        width: In pixels, one of `WIDTHS`. A very long page comes out narrower.
        limits: What it may cost.

    Raises:
        UsageError: No page and no width can have such a number.
        DocumentError: No PDF, damaged, encrypted, without such a page, or too much work.
    """
    if width not in WIDTHS:
        raise UsageError(
            f"a page of {width} pixels in width cannot be drawn",
            hint=f"choose a width from {WIDTHS[0]} to {WIDTHS[-1]}",
        )
    return _seen(path, View(_checked(page), width), limits).picture


def find_boxes(
    path: Path, page: int, *, text: str, start: int, end: int, limits: ReadLimits = VIEW_LIMITS
) -> Seen:
    """Where some characters of a page's text stand on it.

    Args:
        path: A PDF.
        page: Its number, from 1.
        text: All of the page's text, as its reader made it.
        start: The first character, counted in that text.
        end: One past the last.
        limits: What it may cost.

    Returns:
        Boxes, and whether they hold every character; nothing is guessed.

    Raises:
        UsageError: No page has such a number.
        DocumentError: No PDF, damaged, encrypted, without such a page, or too much work.
    """
    view = View(_checked(page), text=text, start=max(start, 0), end=max(end, 0))
    return _seen(path, view, limits)


def _checked(page: int) -> int:
    if page < 1:
        raise UsageError(f"there is no page {page}", hint="pages are counted from 1")
    return page


def _seen(path: Path, view: View, limits: ReadLimits) -> Seen:
    with opened(path, limits) as (file, size):
        request = Request(file, size, source="", stem="", suffix=".pdf", view=view)
        return VIEWS.look(request, limits)
