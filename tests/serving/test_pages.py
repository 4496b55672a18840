"""Pictures of pages as the server keeps them: drawn once, bounded, and never waited for by many."""

import asyncio
import threading
from pathlib import Path

import pytest

from consilience.documents.wire import Seen
from consilience.serving import pictures
from consilience.serving.errors import OverloadedError
from consilience.serving.pictures import Pictures
from tests.documents import samples
from tests.serving.world import SECONDS, uploaded, world


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Pages and widths as they are drawn; a picture is as many bytes as it is wide."""
    seen: list[tuple[int, int]] = []

    def draw(path: Path, page: int, *, width: int) -> bytes:
        seen.append((page, width))
        return bytes(width)

    monkeypatch.setattr(pictures, "draw_page", draw)
    return seen


def test_a_page_is_drawn_once(drawn: list[tuple[int, int]]) -> None:
    async def go() -> None:
        kept = Pictures()
        for _ in range(2):
            for page, width in ((1, 100), (1, 200), (2, 100)):
                assert await kept.picture("d", Path("x"), page, width) == bytes(width)
        kept.close()

    asyncio.run(go())
    assert drawn == [(1, 100), (1, 200), (2, 100)]


def test_what_was_not_looked_at_for_longest_goes_first(drawn: list[tuple[int, int]]) -> None:
    async def go() -> None:
        kept = Pictures(most_bytes=300)
        for page in (1, 2, 3, 1, 4, 1, 2):
            await kept.picture("d", Path("x"), page, 100)
        assert kept._size == 300
        kept.forget({"e"})
        assert (kept._size, len(kept._kept)) == (0, 0)
        kept.close()

    asyncio.run(go())
    assert [page for page, _ in drawn] == [1, 2, 3, 4, 2]


def test_few_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    may = threading.Event()

    def find(path: Path, page: int, *, text: str, start: int, end: int) -> Seen:
        assert may.wait(SECONDS)
        return Seen(complete=True)

    monkeypatch.setattr(pictures, "find_boxes", find)
    monkeypatch.setattr(pictures, "MOST_WAITING", 2)

    async def go() -> None:
        kept = Pictures()
        first = [
            asyncio.ensure_future(kept.boxes(Path("x"), 1, text="", start=0, end=0))
            for _ in range(2)
        ]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError) as caught:
            await kept.boxes(Path("x"), 1, text="", start=0, end=0)
        assert caught.value.message == "2 pages are waiting to be drawn"
        may.set()
        assert [one.complete for one in await asyncio.gather(*first)] == [True, True]
        assert (await kept.boxes(Path("x"), 1, text="", start=0, end=0)).complete
        kept.close()

    asyncio.run(go())


def test_a_hostile_page_costs_its_reader_and_not_the_server(tmp_path: Path) -> None:
    with world(tmp_path) as place:
        client = place.client()
        heavy = samples.raw_pdf(b"/F 9 Tf BT (word) Tj ET " + b"0 0 612 792 re f " * 20).replace(
            b"[0 0 612 792]", b"[0 0 1e9 1e9]"
        )
        uploaded(client, "wide.pdf", heavy)
        asked = {"source": "wide.pdf", "page": 1, "width": 2000}
        assert client.get("/v1/documents/page", params=asked).status_code in (200, 422)
        uploaded(client, "a.pdf", samples.lines_pdf(["Some words"]))
        asked["source"] = "a.pdf"
        assert client.get("/v1/documents/page", params=asked).status_code == 200
