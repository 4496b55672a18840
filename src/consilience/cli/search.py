"""`consilience search`: rank passages, without an answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from consilience.cli.evidence import draw_excerpt, place_of
from consilience.cli.flags import DEFAULT_STORE, AccessFlag, ModelFlag, ModeName, Output, StoreFlag
from consilience.cli.opening import again, checked_question, load_rag, open_store
from consilience.cli.screen import Screen

if TYPE_CHECKING:
    from consilience.retrieval import Hit, Retriever
    from consilience.store import Store

EXAMPLES = (
    'consilience search "who may apply for a travel grant"',
    'consilience search "差旅补助的申请条件" --mode bm25',
    'consilience search "opening hours" --k 20 --json',
)

ModeFlag = Annotated[
    ModeName,
    Option("--mode", help="By words, by meaning, or by both."),
]


@dataclass(frozen=True, slots=True)
class Ranking:
    """How passages are ranked."""

    mode: ModeFlag = "hybrid"
    k: Annotated[int, Option("--k", min=1, help="How many passages at most.")] = 5
    access: AccessFlag = None


def search(
    question: Annotated[str, Argument(metavar="QUESTION")],
    *,
    ranking: Ranking,
    output: Output,
    store: StoreFlag = DEFAULT_STORE,
    model: ModelFlag = None,
) -> int:
    """Rank the passages of the knowledge base, the best first."""
    screen = Screen(output)
    checked_question(question)
    with open_store(store) as opened:
        with screen.working(screen.words.loading):
            retriever = _retriever(opened, ranking, model)
        hits = retriever.search(question, k=ranking.k, access=ranking.access)
    if screen.json:
        screen.document({"hits": [as_document(hit) for hit in hits]})
    else:
        _draw(hits, screen, store)
    return 0


def _retriever(store: "Store", ranking: Ranking, model: str | None) -> "Retriever":
    """A retriever of the store; ranking by words alone needs no model, and so no torch."""
    if ranking.mode != "bm25":
        return load_rag(model).retriever(store, ranking.mode)
    from consilience.retrieval import open_retriever

    return open_retriever(store, mode="bm25", encoder=None)


def as_document(hit: "Hit") -> dict[str, Any]:
    """The JSON form of a hit."""
    passage = hit.passage
    return {
        "id": passage.id,
        "score": hit.score,
        "title": passage.title,
        "source": passage.source,
        "page": passage.page,
        "start": passage.start,
        "end": passage.end,
        "text": passage.text,
    }


def _draw(hits: Sequence["Hit"], screen: Screen, store: Path) -> None:
    if not hits:
        screen.line(screen.words.no_hits)
        return
    for rank, hit in enumerate(hits, start=1):
        screen.line(
            (f"{rank:>2} ", "dim"),
            f"{hit.score:7.3f}  ",
            (place_of(hit.passage), "bold"),
            (f"  {hit.passage.id}", "dim"),
        )
        draw_excerpt(hit.passage, screen)
    screen.line()
    screen.next("show", hits[0].passage.id, *again(store))
