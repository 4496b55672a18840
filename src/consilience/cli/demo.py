"""`consilience demo`: the example corpus in, questions in two languages, answers with evidence.

The corpus is three invented organisations that lie beside the source code; each becomes a
contributor. What is asked stands in the corpus, in `demo.jsonl`, and not here.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from consilience.cli.evidence import draw, passages_of
from consilience.cli.flags import ModelFlag, Output
from consilience.cli.opening import again, load_rag
from consilience.cli.progress import shown
from consilience.cli.screen import Screen, one_line, safe
from consilience.errors import DamagedError, DocumentError, MissingError

if TYPE_CHECKING:
    from consilience.model import Rag
    from consilience.store import AddReport, Store

EXAMPLES = (
    "consilience demo",
    "consilience demo --lang zh --keep knowledge",
    "consilience demo --examples examples/three_organisations --json",
)

ORGANISATIONS = ("hospital", "bank", "university")
QUESTIONS = "demo.jsonl"


@dataclass(frozen=True, slots=True)
class Question:
    """A question of the demonstration, and its language."""

    question: str
    language: str


def demo(
    *,
    output: Output,
    keep: Annotated[
        Path | None,
        Option(metavar="DIR", help="Where the knowledge base goes.", show_default="a new folder"),
    ] = None,
    examples: Annotated[
        Path | None,
        Option(metavar="DIR", help="The example corpus.", show_default="beside the source code"),
    ] = None,
    model: ModelFlag = None,
) -> int:
    """Answer questions about three example organisations.

    Their documents, in Chinese and English, are taken into a new knowledge base.
    """
    from consilience.store import Store

    screen = Screen(output)
    corpus = corpus_folder(examples)
    questions = read_questions(corpus / QUESTIONS)
    with screen.working(screen.words.loading):
        rag = load_rag(model)
    path = keep or _new_folder()
    if not screen.json:
        screen.line((screen.words.demo_intro, "bold"))
    with Store.open(path, encoder=rag.encoder) as store:
        reports = [_take_in(store, corpus / name, screen) for name in ORGANISATIONS]
        answers = [_answer(store, rag, question, screen) for question in questions]
    if screen.json:
        screen.document(_document(path, reports, answers))
    else:
        _close(path, model, questions, screen)
    return DocumentError.code if any(report.failed for report in reports) else 0


def _new_folder() -> Path:
    """A folder that outlives this process, so that what is said to type next can be typed."""
    import tempfile

    return Path(tempfile.mkdtemp(prefix="consilience-demo-"))


def corpus_folder(named: Path | None) -> Path:
    """The example corpus: the folder named, or the one in the tree that this file lies in.

    Raises:
        MissingError: It is not there, as when the package was installed without its tree.
    """
    folder = named or Path(__file__).parents[3] / "examples" / "three_organisations"
    wanted = [folder / QUESTIONS, *(folder / name / "documents" for name in ORGANISATIONS)]
    lacking = [path for path in wanted if not path.exists()]
    if lacking:
        raise MissingError(
            f"the example corpus is not there: no {lacking[0]}",
            hint="consilience demo --examples DIR, with the folder examples/three_organisations "
            "of the source code",
        )
    return _from_here(folder)


def _from_here(folder: Path) -> Path:
    """The folder as a person here would name it, since citations will show that name."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def read_questions(path: Path) -> list[Question]:
    """The questions of the demonstration.

    Raises:
        DamagedError: A line is not a question with its language.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        return [Question(**json.loads(line)) for line in lines if line.strip()]
    except (ValueError, TypeError) as error:
        raise DamagedError(
            f'{path} has a line that is not {{"question": "…", "language": "…"}}: {error}',
            hint="put the file back as it is in the source code",
        ) from error


def _take_in(store: "Store", organisation: Path, screen: Screen) -> "AddReport":
    from consilience.store import AddOptions

    begun = time.perf_counter()
    options = AddOptions(contributor=organisation.name)
    with shown(screen, quiet=False) as listener:
        report = store.add(organisation / "documents", options=options, progress=listener)
    if not screen.json:
        _draw_intake(organisation.name, report, time.perf_counter() - begun, screen)
    return report


def _draw_intake(contributor: str, report: "AddReport", seconds: float, screen: Screen) -> None:
    for failure in report.failed:
        screen.note(f"{safe(failure.path)}: {safe(failure.reason)}")
    screen.line(
        screen.words.demo_ingest.format(
            contributor=contributor,
            added=len(report.added),
            passages=report.passages,
            seconds=seconds,
        )
    )


def _answer(store: "Store", rag: "Rag", asked: Question, screen: Screen) -> dict[str, Any]:
    answer = rag.ask(asked.question, store)
    if not screen.json:
        screen.line()
        screen.line((f"{screen.words.question}: ", "dim"), (one_line(asked.question), "bold"))
        draw(answer, passages_of(answer, store), screen)
    return {"language": asked.language, **answer.to_dict()}


def _document(
    path: Path, reports: list["AddReport"], answers: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "store": str(path),
        "added": [name for report in reports for name in report.added],
        "failed": [
            {"path": failure.path, "reason": failure.reason}
            for report in reports
            for failure in report.failed
        ],
        "passages": sum(report.passages for report in reports),
        "answers": answers,
    }


def _close(path: Path, model: str | None, questions: list[Question], screen: Screen) -> None:
    screen.line()
    screen.line((screen.words.demo_kept.format(path=safe(str(path))), "bold"))
    flags = again(path, model)
    screen.next("ask", questions[0].question, "--explain", *flags)
    screen.next("ask", *flags)
    screen.next("search", questions[-1].question, "--mode", "bm25", *again(path))
    screen.next("show", *again(path))
