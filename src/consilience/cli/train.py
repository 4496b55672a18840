"""`consilience train`: a run from a config, which goes on by itself where it was interrupted.

Every key of a config is also a flag of the same name, declared once in `training.config`. Flags
win over the file.
"""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from consilience.cli.evaluate import counted
from consilience.cli.flags import Output
from consilience.cli.screen import Screen, safe
from consilience.training.config import TrainConfig
from consilience.training.settings import leaves, read_settings

if TYPE_CHECKING:
    from consilience.training.run import Trained

EXAMPLES = (
    "consilience train joint.yaml",
    "consilience train joint.yaml --steps 2000 --output runs/longer",
    "consilience train 微调.yaml --adapter.kind lora --lang zh",
)


def with_settings(verb: Callable[..., int]) -> Callable[..., int]:
    """The verb with a flag for every setting of a config.

    Args:
        verb: Takes the flags that were given as `overrides`, by dotted key.
    """

    @functools.wraps(verb)
    def command(**values: Any) -> int:
        given = {_name(leaf.path): leaf.path for leaf in leaves(TrainConfig)}
        overrides = {path: values.pop(name) for name, path in given.items() if name in values}
        return verb(**values, overrides={k: v for k, v in overrides.items() if v is not None})

    own = inspect.signature(verb, eval_str=True).parameters
    kept = [each for name, each in own.items() if name != "overrides"]
    command.__signature__ = inspect.Signature([*kept, *_flags()])  # type: ignore[attr-defined]
    return command


def _name(path: str) -> str:
    return "set_" + path.replace(".", "_")


def _flags() -> list[inspect.Parameter]:
    """A parameter for every setting; what it may be is checked with the file's, all at once."""
    return [
        inspect.Parameter(
            _name(leaf.path),
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                str | None,
                Option(
                    f"--{leaf.path}",
                    help=leaf.setting.help,
                    metavar="VALUE",
                    show_default=False,
                ),
            ],
        )
        for leaf in leaves(TrainConfig)
    ]


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
    screen = Screen(output)
    settings = read_settings(TrainConfig, config, overrides)
    with screen.working(screen.words.loading):
        from consilience.training.run import train as run
    with counted(screen) as progress:
        found = run(settings, say=_teller(screen), progress=progress)
    if screen.json:
        screen.document(found.to_dict())
    else:
        _draw(found, screen)
    return 0


def _teller(screen: Screen) -> Callable[[str], None]:
    def tell(text: str) -> None:
        if not screen.json:
            screen.note(safe(text))

    return tell


def _draw(found: "Trained", screen: Screen) -> None:
    place = found.output / "model"
    screen.line((screen.words.trained.format(steps=found.steps, path=safe(str(place))), "bold"))
    for name, value in found.metrics.items():
        screen.line(f"  {name.removeprefix('eval_')}  {value:.4g}")
    screen.next("evaluate", "DATA", "--model", str(place))
