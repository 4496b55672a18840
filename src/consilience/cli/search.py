"""`consilience search`: rank passages, without an answer; or find out how to rank them best."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from consilience.cli.evidence import draw_excerpt, place_of
from consilience.cli.flags import (
    DEFAULT_STORE,
    AccessFlag,
    DiversityFlag,
    EngineFlag,
    IndexName,
    ModelFlag,
    ModeName,
    Output,
    PerContributorFlag,
    RerankFlag,
    StoreFlag,
    WhereFlag,
)
from consilience.cli.opening import (
    again,
    checked_filter,
    checked_question,
    load_rag,
    open_searched,
    open_store,
)
from consilience.cli.screen import Screen
from consilience.errors import UsageError

if TYPE_CHECKING:
    from consilience.encoding import Encoder
    from consilience.evaluation.tuning import Tuned, TuneOptions
    from consilience.retrieval import Hit, Refinement, Retriever
    from consilience.retrieval.engines import Copy
    from consilience.store import Store

EXAMPLES = (
    'consilience search "who may apply for a travel grant"',
    'consilience search "差旅补助的申请条件" --mode bm25 --per-contributor 2',
    "consilience search --tune dev.jsonl --dry-run",
)

ModeFlag = Annotated[
    ModeName,
    Option("--mode", help="By words, by meaning, or by both."),
]


@dataclass(frozen=True, slots=True)
class Ranking:
    """How passages are ranked."""

    mode: ModeFlag = "hybrid"
    k: Annotated[
        int | None,
        Option(
            "--k", min=1, help="How many passages at most.", show_default="what was tuned, or 5"
        ),
    ] = None
    access: AccessFlag = None
    where: WhereFlag = None
    rerank: RerankFlag = None
    per_contributor: PerContributorFlag = None
    diversity: DiversityFlag = None

    def refinement(self) -> "Refinement":
        """What is done to the ranking once it is made."""
        from consilience.retrieval import Refinement

        return Refinement(self.rerank, self.per_contributor, self.diversity)


@dataclass(frozen=True, slots=True)
class TuneFlags:
    """How the best way to rank is found."""

    tune: Annotated[
        Path | None,
        Option(
            metavar="DATA",
            help="Instead of searching: find the numbers that suit these questions, and keep them "
            "with the knowledge base.",
            show_default=False,
        ),
    ] = None
    dry_run: Annotated[
        bool, Option("--dry-run", help="With --tune: only print what was found.")
    ] = False
    index: Annotated[
        IndexName | None,
        Option(
            "--index",
            help="With --tune: how vectors are searched from now on.",
            show_default="as before",
        ),
    ] = None


def search(
    question: Annotated[str | None, Argument(metavar="[QUESTION]", show_default=False)] = None,
    *,
    ranking: Ranking,
    tuning: TuneFlags,
    output: Output,
    store: StoreFlag = DEFAULT_STORE,
    model: ModelFlag = None,
    engine: EngineFlag = None,
) -> int:
    """Rank the passages of the knowledge base, the best first.

    With --tune, find out from questions with known answers how to rank them best.
    """
    screen = Screen(output)
    if tuning.tune is not None:
        _require_plain(question, ranking, engine)
        if tuning.index is not None and ranking.mode == "bm25":
            raise UsageError("--index does nothing with --mode bm25", hint="leave one of them out")
        return _tune(tuning.tune, tuning, ranking.mode, _At(store, model), screen)
    for flag, given in (("--dry-run", tuning.dry_run), ("--index", tuning.index)):
        if given:
            raise UsageError(f"{flag} does nothing without --tune", hint="add --tune DATA")
    if question is None:
        raise UsageError("Missing argument 'QUESTION'.", hint="consilience search --help")
    return _search(question, ranking, _At(store, model, engine), screen)


@dataclass(frozen=True, slots=True)
class _At:
    """Where the knowledge base lies and which model searches it."""

    store: Path
    model: str | None
    engine: str | None = None


def _search(question: str, ranking: Ranking, at: _At, screen: Screen) -> int:
    checked_question(question)
    where = checked_filter(ranking.where)
    with open_searched(at.store, at.engine) as opened:
        with screen.working(screen.words.loading):
            retriever = _retriever(opened, ranking, at.model)
        hits = retriever.search(question, k=_k(opened, ranking), access=ranking.access, where=where)
    if screen.json:
        screen.document({"hits": [as_document(hit) for hit in hits]})
    else:
        _draw(hits, screen, None if at.engine else at.store)
    return 0


def _k(store: "Store | Copy", ranking: Ranking) -> int:
    from consilience.retrieval import Tuning

    return Tuning.of(store).proposed(ranking.k)


def _retriever(store: "Store | Copy", ranking: Ranking, model: str | None) -> "Retriever":
    """A retriever of the store; ranking by words alone needs no model, and so no torch."""
    from consilience.retrieval import open_retriever, refined
    from consilience.retrieval.reranking import needs_encoder

    refinement = ranking.refinement()
    if ranking.mode != "bm25" or needs_encoder(ranking.rerank):
        return load_rag(model).retriever(store, ranking.mode, refinement)
    return refined(open_retriever(store, mode="bm25"), refinement, store=store)


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


def _draw(hits: Sequence["Hit"], screen: Screen, store: Path | None) -> None:
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
    if store is not None:
        screen.line()
        screen.next("show", hits[0].passage.id, *again(store))


def _require_plain(question: str | None, ranking: Ranking, engine: str | None) -> None:
    """What is found are the numbers of a plain search of everything."""
    given = {
        "a question": question,
        "--engine": engine,
        "--k": ranking.k,
        "--access": ranking.access,
        "--where": ranking.where,
        "--rerank": ranking.rerank,
        "--per-contributor": ranking.per_contributor,
        "--diversity": ranking.diversity,
    }
    found = [name for name, value in given.items() if value is not None]
    if found:
        raise UsageError(
            f"--tune measures a plain search and takes no {', no '.join(found)}",
            hint="leave out what was named; --mode, --store and --model are understood",
        )


def _tune(data: Path, how: TuneFlags, mode: ModeName, at: _At, screen: Screen) -> int:
    from consilience.evaluation.tuning import tune
    from consilience.questions import read_questions

    questions = read_questions(data)
    with open_store(at.store) as opened:
        with screen.working(screen.words.loading):
            encoder, options = _measured_with(mode, how.index, at.model)
        with screen.working(screen.words.tuning):
            found = tune(opened, questions, encoder=encoder, options=options)
        if not how.dry_run:
            found.tuning.keep(opened)
    if screen.json:
        screen.document({**found.to_dict(), "written": not how.dry_run})
    else:
        _draw_tuned(found, screen, at.store, written=not how.dry_run)
    return 0


def _measured_with(
    mode: ModeName, index: IndexName | None, model: str | None
) -> "tuple[Encoder | None, TuneOptions]":
    """The encoder, if the mode needs one, and the options of the measurement."""
    from consilience.evaluation.tuning import TuneOptions
    from consilience.retrieval import HybridWeights

    if mode == "bm25":
        return None, TuneOptions(mode="bm25")
    rag = load_rag(model)
    weights = HybridWeights(**rag.settings.hybrid_weights)
    return rag.encoder, TuneOptions(mode=mode, weights=weights, index=index)


def _draw_tuned(found: "Tuned", screen: Screen, store: Path, *, written: bool) -> None:
    words = screen.words
    screen.line((words.tuned_on.format(**found.questions), "bold"))
    _draw_halves(found, screen)
    screen.heading(words.curve)
    _draw_curve(found, screen)
    screen.heading(words.numbers)
    for name, value in found.tuning.to_dict().items():
        screen.line(f"{name:<12}", f"{value:g}" if isinstance(value, float) else str(value))
    screen.line()
    if not found.held:
        screen.line(words.not_held)
    screen.line(words.tuning_kept.format(path=store) if written else words.tuning_not_kept)


def _draw_halves(found: "Tuned", screen: Screen) -> None:
    from rich.table import Table

    words = screen.words
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(words.metric)
    for half in (words.half_fit, words.half_check):
        for when in (words.before, words.after):
            table.add_column(f"{half}, {when}", justify="right")
    for name in found.before["fit"]:
        values = [
            one[half][name] for half in ("fit", "check") for one in (found.before, found.after)
        ]
        table.add_row(name, *(f"{value:.3f}" for value in values))
    screen.out.print(table)


def _draw_curve(found: "Tuned", screen: Screen) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("k", "candidates", "recall", "mrr", "p50 ms", "p95 ms"):
        table.add_column(heading, justify="right")
    for point in found.curve:
        candidates = "" if point.candidates is None else str(point.candidates)
        share = (f"{value:.3f}" for value in (point.recall, point.mrr))
        spent = (f"{value:.2f}" for value in (point.p50_ms, point.p95_ms))
        table.add_row(str(point.k), candidates, *share, *spent)
    screen.out.print(table)
