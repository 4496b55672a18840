"""`consilience distil`: a small model is taught what a large one says.

A run like any other, of a config that names a teacher; what differs is said in `training.config`.
"""

from pathlib import Path
from typing import Annotated

from typer import Argument

from consilience.cli.flags import Output
from consilience.cli.train import run_config
from consilience.errors import UsageError
from consilience.training.config import TrainConfig
from consilience.training.settings import read_settings

EXAMPLES = (
    "consilience distil recipes/configs/student.yaml",
    "consilience distil student.yaml --distil.hidden_size 192 --output runs/small",
    "consilience distil 学生.yaml --distil.teacher runs/joint/model --lang zh",
)


def distil(
    config: Annotated[Path, Argument(metavar="CONFIG")],
    *,
    output: Output,
    overrides: dict[str, str],
) -> int:
    """Teach a small model what a large one says, as a config says.

    CONFIG is a YAML file whose `distil.teacher` names the large model. The same command goes on
    where an interrupted run stopped. Every key of the config is a flag too, and a flag wins.
    """
    settings = read_settings(TrainConfig, config, overrides)
    if settings.distil.teacher is None:
        raise UsageError(
            f"{config} names no teacher", hint="set distil.teacher, for instance to shipped"
        )
    return run_config(settings, output)
