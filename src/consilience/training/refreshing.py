"""The other process of an index refresh: embeds a store with a model that was written for it.

python -m consilience.training.refreshing MODEL STORE RUN

RUN is the process that waits for the vectors. When it is gone nobody wants them any more, and a
run that goes on in its place must not meet them in the store.
"""

import os
import shutil
import sys
from pathlib import Path
from threading import Thread
from time import sleep

from consilience.model.loading import load_any_encoder
from consilience.store import Store
from consilience.training.checkpoint import checkpoints, step_of

_LOOK = 0.1  # seconds


def fresh_place(run: Path, step: int) -> Path:
    """Where the weights of a refresh go, a folder that is not there yet.

    A run that goes on from a checkpoint starts the refresh again that was under way there, so the
    weights of each stay until no checkpoint follows them.

    Args:
        run: The folder of the run.
        step: After which the refresh begins.
    """
    folder = run / "refresh"
    held = [int(place.name) for place in folder.glob("*") if place.name.isdigit()]
    wanted = {
        max((one for one in held if one <= step_of(checkpoint)), default=0)
        for checkpoint in checkpoints(run)
    }
    for one in held:
        if one == step or one not in wanted:
            shutil.rmtree(folder / str(one))
    return folder / str(step)


def refresh(model: Path, store: Path) -> int:
    """Embed everything in a store with a model's encoder; the store's new sequence."""
    with Store.open(store, create=False) as opened:
        return opened.re_embed(load_any_encoder(model)).generation


def end_with(process: int) -> None:
    """End this process soon after the one that started it."""

    def watch() -> None:
        while os.getppid() == process:
            sleep(_LOOK)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    end_with(int(sys.argv[3]))
    refresh(Path(sys.argv[1]), Path(sys.argv[2]))
