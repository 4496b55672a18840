"""Several processes that train one model, as `torchrun` starts them.

Each has its part of every batch, and all have the same weights after each step. What is written and
told is the first one's affair; the others wait for it. It knows the environment that `torchrun`
sets, and no engine.
"""

import os
from collections.abc import Iterator

from consilience.errors import UsageError
from consilience.training.config import TrainConfig


def is_first() -> bool:
    """Whether this process is the one that writes and tells; so is one that is alone."""
    return int(os.environ.get("RANK", "0")) == 0


def are_several() -> bool:
    """Whether there are others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def require_shareable(config: TrainConfig) -> None:
    """Refuse what several processes would do to the same files, and what only several can do.

    Raises:
        UsageError: The settings ask for it.
    """
    _require_company(config)
    found = list(_alone(config)) if are_several() else []
    if found:
        raise UsageError(
            "several processes cannot share a run in which " + "; ".join(found),
            hint="train in one process, or leave it out",
        )


def _require_company(config: TrainConfig) -> None:
    """Weights are shared out among several, and where the settings say so.

    Raises:
        UsageError: There is one process, or only the launcher was told.
    """
    if config.fsdp and not are_several():
        raise UsageError(
            "fsdp shares weights out among processes, and there is one",
            hint="start the run with torchrun --nproc-per-node 2, or leave fsdp out",
        )
    if not config.fsdp and os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        raise UsageError(
            "accelerate was told to share weights out (FSDP), and the settings were not",
            hint="set fsdp: true, or take FSDP out of accelerate's config",
        )


def _alone(config: TrainConfig) -> Iterator[str]:
    if config.store is not None and "passage_encoder" in config.train:
        yield "passage_encoder is in train, whose new vectors go into one store"
    if config.chunk is not None:
        yield "chunk contrasts a batch in one process, and no gradient would reach the others"
    if config.vocabulary.tokens:
        yield "vocabulary adds words, which are written before the first step"
    if config.distil.cuts or config.distil.answers == "teacher":
        yield "distil writes a student or a teacher's answers before the first step"
