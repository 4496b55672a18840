"""`consilience compare`: two runs of `evaluate` side by side, and whether they differ by chance."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument

from consilience.cli.flags import Output
from consilience.cli.screen import Screen, one_line

if TYPE_CHECKING:
    from consilience.evaluation import Comparison
    from consilience.evaluation.comparison import Change

EXAMPLES = (
    "consilience compare before.jsonl after.jsonl",
    "consilience compare 旧.jsonl 新.jsonl --lang zh",
    "consilience compare bm25.jsonl hybrid.jsonl --json",
)

MOST_SHOWN = 10
"""Changed questions that people get to see; with `--json` all are there."""


def compare(
    run_a: Annotated[Path, Argument(metavar="RUN_A", show_default=False)],
    run_b: Annotated[Path, Argument(metavar="RUN_B", show_default=False)],
    *,
    output: Output,
) -> int:
    """Compare two runs that `consilience evaluate --out` wrote, question by question.

    Differences are RUN_B less RUN_A, over the questions that both have.
    """
    from consilience.evaluation import compare

    screen = Screen(output)
    found = compare(run_a, run_b)
    if screen.json:
        screen.document({"run_a": str(run_a), "run_b": str(run_b), **found.to_dict()})
        return 0
    _draw_figures(found, screen)
    _draw_changes(found, screen)
    return 0


def _draw_figures(found: "Comparison", screen: Screen) -> None:
    from rich.table import Table

    words = screen.words
    screen.line((words.compared.format(n=found.n), "bold"))
    if found.only_a or found.only_b:
        screen.line(words.only_in_one.format(a=found.only_a, b=found.only_b))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(words.metric)
    span = words.interval.format(level=found.level)
    for heading in ("A", "B", words.difference, span, words.chance):
        table.add_column(heading, justify="right")
    for name, one in found.differences.items():
        low_high = f"{one.interval.low:+.3f} – {one.interval.high:+.3f}" if one.interval else ""
        figures = (f"{one.a:.3f}", f"{one.b:.3f}", f"{one.difference:+.3f}", low_high)
        table.add_row(name, *figures, f"{one.p_randomisation:.3f}")
    screen.out.print(table)
    screen.line((words.chance_note, "dim"))


def _draw_changes(found: "Comparison", screen: Screen) -> None:
    screen.line()
    if not found.changed:
        screen.line(screen.words.no_change)
        return
    better = sum(one.f1_b > one.f1_a for one in found.changed)
    count = len(found.changed)
    counts = screen.words.changed.format(count=count, better=better, worse=count - better)
    screen.line((counts, "bold"))
    for one in found.changed[:MOST_SHOWN]:
        _draw_change(one, screen)


def _draw_change(one: "Change", screen: Screen) -> None:
    style = "green" if one.f1_b > one.f1_a else "red"
    screen.line((f"{one.f1_a:.2f} → {one.f1_b:.2f}  ", style), one_line(one.question))
    right = " · ".join(map(one_line, one.answers))
    screen.line(("      ", ""), (screen.words.right_answer.format(answers=right), "dim"))
    screen.line(("      A: ", "dim"), one_line(one.a) or "–")
    screen.line(("      B: ", "dim"), one_line(one.b) or "–")
