"""Pictures of pages, drawn for whoever reads a citation, and kept for a while.

Drawing goes on in one confined child process, one page after the other, on a thread of its own so
that searches do not wait for it. Few may wait for their turn, and the pictures that are kept have a
greatest size together. Knows files by their digests, and not who may see them.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from consilience.documents.pages import draw_page, find_boxes
from consilience.documents.wire import Seen
from consilience.serving.errors import OverloadedError

T = TypeVar("T")

MOST_BYTES = 64_000_000
"""Bytes of pictures that are kept."""

MOST_WAITING = 16
"""Pages that may be waited for at the same time."""

Key = tuple[str, int, int]
"""Digest of the file, page, width."""


class Pictures:
    """Draws pages.

    Args:
        most_bytes: How much is kept.
    """

    def __init__(self, *, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._kept: OrderedDict[Key, bytes] = OrderedDict()
        self._size = 0
        self._waiting = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pages")

    def close(self) -> None:
        """Draw no more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def picture(self, digest: str, path: Path, page: int, width: int) -> bytes:
        """The picture of a page, as PNG.

        Raises:
            OverloadedError: Too many wait.
            DocumentError: As `draw_page`.
        """
        key = (digest, page, width)
        if key not in self._kept:
            drawn = await self._turn(lambda: draw_page(path, page, width=width))
            self._keep(key, drawn)
            return drawn
        self._kept.move_to_end(key)
        return self._kept[key]

    async def boxes(self, path: Path, page: int, *, text: str, start: int, end: int) -> Seen:
        """Where characters of a page's text stand.

        Raises:
            OverloadedError: Too many wait.
            DocumentError: As `find_boxes`.
        """
        return await self._turn(lambda: find_boxes(path, page, text=text, start=start, end=end))

    def forget(self, digests: set[str]) -> None:
        """Keep only pictures of these files."""
        for key in [key for key in self._kept if key[0] not in digests]:
            self._size -= len(self._kept.pop(key))

    def _keep(self, key: Key, drawn: bytes) -> None:
        if key not in self._kept:
            self._kept[key] = drawn
            self._size += len(drawn)
        while self._size > self._most:
            self._size -= len(self._kept.popitem(last=False)[1])

    async def _turn(self, draw: Callable[[], T]) -> T:
        if self._waiting >= MOST_WAITING:
            raise OverloadedError(
                f"{self._waiting} pages are waiting to be drawn",
                hint="try again in 2 s",
                retry_after=2,
            )
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, draw)
        finally:
            self._waiting -= 1
