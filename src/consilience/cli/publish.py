"""`consilience publish`: bring the copy in an engine up to the knowledge base's last change."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from consilience.cli.flags import DEFAULT_STORE, Output, StoreFlag
from consilience.cli.opening import open_store
from consilience.cli.progress import counted
from consilience.cli.screen import Screen, safe

if TYPE_CHECKING:
    from consilience.retrieval.engines import PublishReport

EXAMPLES = (
    "consilience publish postgresql://editor@db.example/knowledge",
    'consilience publish "postgresql://me@db.example/all?copy=handbook"',
    "consilience publish elasticsearch+https://es.example:9200 --json",
)


def publish(
    url: Annotated[str, Argument(metavar="URL")],
    *,
    output: Output,
    store: StoreFlag = DEFAULT_STORE,
    replace: Annotated[
        bool, Option("--replace", help="Make the copy anew, whatever is under its name.")
    ] = False,
) -> int:
    """Publish the knowledge base to an engine that many machines can search.

    URL names the engine, and with ?copy=NAME the copy in it. Only what has changed since is sent,
    and readers see all of it at once. A password is best left out of URL and put into the
    environment variable CONSILIENCE_ENGINE_PASSWORD.
    """
    screen = Screen(output)
    with counted(screen, screen.words.passages_done) as heard:
        report = _published(url, store, replace, heard or _silent)
    if screen.json:
        screen.document(asdict(report))
        return 0
    counts = {name: value for name, value in asdict(report).items() if name != "engine"}
    screen.line(screen.words.published.format(engine=safe(report.engine), **counts))
    screen.next("search", screen.words.an_example, "--engine", report.engine)
    return 0


def _published(
    url: str, store: Path, replace: bool, heard: Callable[[int, int], None]
) -> "PublishReport":
    from consilience.retrieval.engines import Publisher, open_engine

    with open_store(store) as opened:
        engine = open_engine(url)
        try:
            return Publisher(opened, engine, replace=replace, heard=heard).catch_up()
        finally:
            engine.close()


def _silent(done: int, total: int) -> None:
    """Nobody looks."""
