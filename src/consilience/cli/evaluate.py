"""`consilience evaluate`: questions with known answers asked of a model, and how good it was.

Numbers go to the screen, every question to a run file, and all of it to a report. Measures nothing
itself.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Option

from consilience.cli.flags import (
    DEFAULT_STORE,
    AccessFlag,
    FusionName,
    ModelFlag,
    ModeName,
    Output,
    QuoteFlag,
    StoreFlag,
)
from consilience.cli.opening import load_rag, open_store
from consilience.cli.progress import counted
from consilience.cli.screen import Screen, safe
from consilience.errors import UsageError
from consilience.questions.tasks import TaskName, task_named

if TYPE_CHECKING:
    from consilience.evaluation import Evaluation, EvaluationOptions
    from consilience.questions import Question

EXAMPLES = (
    "consilience evaluate dev.jsonl --out run.jsonl",
    "consilience evaluate 问题.jsonl --report 报告 --lang zh",
    "consilience evaluate squad.json --evidence context --limit 200 --json",
)


@dataclass(frozen=True, slots=True)
class Asking:
    """How the questions are asked, and which."""

    fusion: Annotated[
        FusionName,
        Option(help="Where the sum over passages stands."),
    ] = "sequence"
    k: Annotated[
        int | None,
        Option(
            "--k",
            min=1,
            help="How many passages are summed over.",
            show_default="what was tuned, else 5",
        ),
    ] = None
    mode: Annotated[
        ModeName | None,
        Option("--mode", help="How passages are found.", show_default="what suits the model"),
    ] = None
    beams: Annotated[int, Option(min=1, help="Answers kept at each step; 1 is greedy.")] = 3
    max_new_tokens: Annotated[int, Option(min=1, help="The longest answer, in tokens.")] = 48
    quote: QuoteFlag = False
    access: AccessFlag = None
    evidence: Annotated[
        Literal["store", "context"],
        Option(help="Read the knowledge base, or the context that comes with each question."),
    ] = "store"
    abstain: Annotated[
        bool, Option("--abstain/--no-abstain", help="Withhold answers without support.")
    ] = True
    limit: Annotated[
        int | None, Option(min=1, help="Ask only the first so many.", show_default="all")
    ] = None
    task: Annotated[
        TaskName | None,
        Option(help="Put each question as this task does.", show_default="as they are"),
    ] = None
    shots: Annotated[
        int, Option(min=0, max=1, help="Of --task: 1 shows the first question's answer before.")
    ] = 0


@dataclass(frozen=True, slots=True)
class Result:
    """What is measured, and where it goes."""

    overlap: Annotated[
        bool, Option("--overlap/--no-overlap", help="Measure ROUGE and BLEU, from the extra.")
    ] = True
    out: Annotated[
        Path | None,
        Option(metavar="RUN.jsonl", help="Write each question here, go on.", show_default=False),
    ] = None
    report: Annotated[
        Path | None,
        Option(metavar="DIR", help="Write an HTML page with plots here.", show_default=False),
    ] = None


def evaluate(
    data: Annotated[Path, Argument(metavar="DATA")],
    *,
    asking: Asking,
    result: Result,
    output: Output,
    store: StoreFlag = DEFAULT_STORE,
    model: ModelFlag = None,
) -> int:
    """Ask questions with known answers, and measure how good the answers are.

    DATA is JSON lines of questions and answers, or a file of SQuAD, CMRC, DRCD, DPR or KILT.
    With --out an interrupted evaluation goes on where it stopped.
    """
    from consilience.questions import read_questions

    screen = Screen(output)
    task = None if asking.task is None else task_named(asking.task)
    example, questions = _shown(read_questions(data), asking)
    reads_store = asking.evidence == "store" and (task is None or task.retrieves)
    where = _Where(store if reads_store else None, model, result.out)
    options = replace(_options(asking, result), task=task, example=example)
    evaluation = _evaluated(questions[: asking.limit], where, options, screen)
    report = _report(evaluation, data, result, screen)
    if screen.json:
        screen.document({**evaluation.to_dict(), **_paths(run=result.out, report=report)})
    else:
        draw(evaluation, screen)
        _close(report, result, screen)
    return 0


def _shown(
    questions: Sequence["Question"], asking: Asking
) -> tuple["Question | None", Sequence["Question"]]:
    """The example that is shown before each question, and the questions that are asked."""
    if not asking.shots:
        return None, questions
    if asking.task is None:
        raise UsageError("--shots shows an example of a task", hint="add --task")
    place = next((place for place, one in enumerate(questions) if one.answers), None)
    if place is None:
        raise UsageError("no question has an answer to show", hint="leave --shots out")
    return questions[place], [*questions[:place], *questions[place + 1 :]]


@dataclass(frozen=True, slots=True)
class _Where:
    """Where things are.

    Attributes:
        store: The knowledge base; None to read the contexts of the questions.
        model: The model's name.
        out: The run file.
    """

    store: Path | None
    model: str | None
    out: Path | None


def _evaluated(
    questions: Sequence["Question"], where: _Where, options: "EvaluationOptions", screen: Screen
) -> "Evaluation":
    from consilience.evaluation import evaluate

    with ExitStack() as stack:
        store = None if where.store is None else stack.enter_context(open_store(where.store))
        with screen.working(screen.words.loading):
            rag = load_rag(where.model)
        progress = stack.enter_context(counted(screen, screen.words.questions_done))
        return evaluate(rag, store, questions, options, run=where.out, progress=progress)


def _options(asking: Asking, result: Result) -> "EvaluationOptions":
    from consilience.evaluation import EvaluationOptions, Scoring
    from consilience.model import AskOptions

    ask = AskOptions(
        k=asking.k,
        mode=asking.mode,
        fusion=asking.fusion,
        beams=asking.beams,
        max_new_tokens=asking.max_new_tokens,
        quote=asking.quote,
        access=asking.access,
        abstain=asking.abstain,
    )
    return EvaluationOptions(ask=ask, scoring=Scoring(overlap=result.overlap))


def _report(evaluation: "Evaluation", data: Path, result: Result, screen: Screen) -> Path | None:
    if result.report is None:
        return None
    from consilience.evaluation import write_report

    return write_report(evaluation, result.report, language=screen.language, name=data.name)


def _paths(**paths: Path | None) -> dict[str, str | None]:
    return {name: None if path is None else str(path) for name, path in paths.items()}


def draw(evaluation: "Evaluation", screen: Screen) -> None:
    """Print every metric with its interval."""
    from rich.table import Table

    words = screen.words
    screen.line((words.evaluated.format(n=evaluation.n), "bold"))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(words.metric)
    for heading in (words.value, words.interval.format(level=evaluation.level)):
        table.add_column(heading, justify="right")
    for name, value in evaluation.metrics.items():
        span = evaluation.intervals.get(name)
        table.add_row(name, f"{value:.3f}", f"{span.low:.3f} – {span.high:.3f}" if span else "")
    screen.out.print(table)


def _close(report: Path | None, result: Result, screen: Screen) -> None:
    """Where it was written, and what can be done with it."""
    if report is not None:
        screen.line(screen.words.report_written.format(path=safe(str(report))))
    if result.out is not None:
        screen.next("compare", str(result.out), "RUN_B")
