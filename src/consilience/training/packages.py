"""The packages that training needs beyond those of an answer.

They are looked for before anything of this room that uses them is imported: whoever installed
consilience to ask questions is told in one line what to type.
"""

from collections.abc import Collection
from importlib.util import find_spec

from consilience.errors import DependencyError


def require_packages(report_to: Collection[str] = ()) -> None:
    """See that what a run needs is installed.

    Args:
        report_to: What its curves are written with, as `TrainConfig.report_to`.

    Raises:
        DependencyError: Something is not.
    """
    wanted = ["accelerate", *(["tensorboard"] if "tensorboard" in report_to else [])]
    missing = [name for name in wanted if find_spec(name) is None]
    if missing:
        raise DependencyError(
            f"training needs the package {missing[0]}", hint="pip install 'consilience[train]'"
        )
