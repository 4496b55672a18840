"""`consilience remove`: delete sources from the text and from every index at once."""

from typing import Annotated

from typer import Argument

from consilience.cli.flags import DEFAULT_STORE, Output, StoreFlag
from consilience.cli.opening import again, open_store
from consilience.cli.screen import Screen, safe

EXAMPLES = (
    "consilience remove handbook/leave.md",
    "consilience remove 规章制度/请假办法.docx --store knowledge",
    "consilience remove handbook/ --json",
)


def remove(
    sources: Annotated[
        list[str],
        Argument(metavar="SOURCE…"),
    ],
    *,
    output: Output,
    store: StoreFlag = DEFAULT_STORE,
) -> int:
    """Remove sources: text and passages, from every index at once.

    SOURCE is a name as `consilience show` lists it, or a folder with / at
    its end. Either all of them go or, when one is not there, none.
    """
    screen = Screen(output)
    with open_store(store) as opened:
        report = opened.remove(*sources)
    if screen.json:
        screen.document({"removed": report.removed, "generation": report.generation})
        return 0
    for source in report.removed:
        screen.line(safe(source))
    counts = {"sources": len(report.removed), "passages": report.passages}
    screen.line(screen.words.removed.format(**counts))
    screen.next("show", *again(store))
    return 0
