"""`consilience train`: a run from a config, which goes on by itself where it was interrupted.

Every key of a config is also a flag of the same name, declared once in `training.config`. Flags
win over the file.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument

from consilience.cli.flags import Output
from consilience.cli.progress import Counter, counted
from consilience.cli.screen import Screen, safe
from consilience.training.config import TrainConfig
from consilience.training.packages import require_packages
from consilience.training.processes import is_first
from consilience.training.settings import read_settings

if TYPE_CHECKING:
    from consilience.training.run import Trained

EXAMPLES = (
    "consilience train joint.yaml",
    "consilience train joint.yaml --steps 2000 --output runs/longer",
    "consilience train 微调.yaml --adapter.kind lora --lang zh",
)


def train(
    config: Annotated[Path, Argument(metavar="CONFIG")],
    *,
    output: Output,
    overrides: dict[str, str],
) -> int:
    """Train a model on questions and answers, as a config says.

    CONFIG is a YAML file. The same command goes on where an interrupted run stopped. Every key of
    the config is a flag too, and a flag wins.
    """
    return run_config(read_settings(TrainConfig, config, overrides), output)


def run_config(settings: TrainConfig, output: Output) -> int:
    """Train as settings say, with progress, and tell what came of it."""
    screen = Screen(output)
    require_packages(settings.report_to)
    with screen.working(screen.words.loading):
        from consilience.training.run import train as run
    with counted(screen, screen.words.steps_done) as count:
        progress = None if count is None else partial(_step, count, screen)
        found = run(settings, say=screen.tell, progress=progress)
    if not is_first():
        return 0
    if screen.json:
        screen.document(found.to_dict())
    else:
        _draw(found, screen)
    return 0


def _step(count: Counter, screen: Screen, done: int, total: int, loss: float | None) -> None:
    count(done, total, "" if loss is None else screen.words.loss.format(loss=loss))


def _draw(found: "Trained", screen: Screen) -> None:
    place = found.output / "model"
    screen.line((screen.words.trained.format(steps=found.steps, path=safe(str(place))), "bold"))
    for name, value in found.metrics.items():
        screen.line(f"  {name.removeprefix('eval_')}  {value:.4g}")
    screen.next("evaluate", "DATA", "--model", str(place))
