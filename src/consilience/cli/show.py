"""`consilience show`: what is in the knowledge base, in a source, and around a passage."""

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument

from consilience.cli.evidence import marked, place_of
from consilience.cli.flags import DEFAULT_STORE, Output, StoreFlag
from consilience.cli.opening import again, open_store
from consilience.cli.screen import Screen, assembled, one_line, safe
from consilience.errors import MissingError

if TYPE_CHECKING:
    from consilience.documents import Document, Passage
    from consilience.store import SourceInfo, Stats, Store

EXAMPLES = (
    "consilience show",
    "consilience show 规章制度/请假办法.docx",
    "consilience show 3f2a9c0d11e84b57 --json",
)

CONTEXT = 240
"""Characters of the document that are shown on either side of a passage."""


def show(
    name: Annotated[
        str | None,
        Argument(metavar="[SOURCE|PASSAGE_ID]", show_default=False),
    ] = None,
    *,
    output: Output,
    store: StoreFlag = DEFAULT_STORE,
) -> int:
    """Show the knowledge base, a source, or a passage where it stands.

    SOURCE is a name as the list of the whole knowledge base has it.
    PASSAGE_ID stands beside each passage that `consilience search` finds.
    """
    screen = Screen(output)
    with open_store(store) as opened:
        if name is None:
            _show_store(opened, store, screen)
        elif (passage := _passage(opened, name)) is not None:
            _show_passage(passage, opened.document(passage.source), screen)
        else:
            _show_source(opened, opened.document(name), screen)
    return 0


def _passage(store: "Store", name: str) -> "Passage | None":
    with suppress(MissingError):
        return store.passage(name)
    return None


def _show_store(store: "Store", path: Path, screen: Screen) -> None:
    stats, sources = store.stats(), store.sources()
    if screen.json:
        screen.document(_store_document(path, stats, sources))
        return
    if not sources:
        screen.line(screen.words.empty_store.format(path=safe(str(path))))
        screen.next("add", "PATH", *again(path))
        return
    _draw_stats(path, stats, screen)
    _draw_sources(sources, screen)
    screen.next("show", sources[0].source, *again(path))


def _store_document(path: Path, stats: "Stats", sources: list["SourceInfo"]) -> dict[str, Any]:
    counts = asdict(stats)
    generation = counts.pop("sequence")
    listed = [asdict(source) for source in sources]
    return {"store": str(path), "generation": generation, **counts, "sources": listed}


def _draw_stats(path: Path, stats: "Stats", screen: Screen) -> None:
    screen.line((screen.words.store.format(path=safe(str(path))), "bold"))
    counts = asdict(stats) | {"generation": stats.sequence, "megabytes": stats.bytes / 1e6}
    screen.line(screen.words.contents.format(**counts))
    screen.line(screen.words.encoder.format(fingerprint=stats.fingerprint[:16]))
    screen.line()


def _draw_sources(sources: list["SourceInfo"], screen: Screen) -> None:
    from rich.table import Table

    words = screen.words
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(words.source, overflow="fold")
    for heading in (words.language, words.contributor, words.access):
        table.add_column(heading)
    for heading in (words.length, words.passages):
        table.add_column(heading, justify="right")
    for one in sources:
        named = (one.source, one.language, one.contributor, " ".join(one.access))
        counted = (str(one.characters), str(one.passages))
        table.add_row(*(assembled(one_line(text)) for text in named), *counted)
    screen.out.print(table)


def _show_source(store: "Store", document: "Document", screen: Screen) -> None:
    info = next(each for each in store.sources() if each.source == document.source)
    if screen.json:
        screen.document(_source_document(document, info))
        return
    words = screen.words
    screen.line((one_line(document.source), "bold"))
    facts = {
        words.title: document.title,
        words.language: document.language,
        words.contributor: document.contributor,
        words.access: " ".join(document.access),
        words.length: str(info.characters),
        words.pages: str(len(document.pages) or ""),
        words.passages: str(info.passages),
    }
    _draw_facts(facts | dict(document.metadata), screen)


def _source_document(document: "Document", info: "SourceInfo") -> dict[str, Any]:
    pages = [asdict(page) for page in document.pages]
    return {**asdict(info), "metadata": dict(document.metadata), "pages": pages}


def _show_passage(passage: "Passage", document: "Document", screen: Screen) -> None:
    before = document.text[max(0, passage.start - CONTEXT) : passage.start]
    after = document.text[passage.end : passage.end + CONTEXT]
    if screen.json:
        screen.document({**asdict(passage), "before": before, "after": after})
        return
    words = screen.words
    span = words.characters.format(places=f"{passage.start}–{passage.end}")
    screen.line((place_of(passage), "bold"), (f"  {span}", "dim"))
    labels = " ".join(passage.access)
    facts = {words.title: passage.title, words.contributor: passage.contributor}
    _draw_facts(facts | {words.access: labels}, screen)
    screen.line()
    around = ((_lines(before), "dim"), marked(_lines(passage.text), screen), (_lines(after), "dim"))
    screen.out.print(assembled(*around))


def _lines(text: str) -> str:
    """Text safe for a terminal that keeps its lines."""
    return "\n".join(safe(line) for line in text.split("\n"))


def _draw_facts(facts: dict[str, str], screen: Screen) -> None:
    for label, value in facts.items():
        if value:
            screen.line((f"{one_line(label)}: ", "dim"), one_line(value))
