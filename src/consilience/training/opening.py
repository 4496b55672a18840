"""What a run opens before anything is learned: its store, and the model that it starts from."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from consilience.encoding.folder import ModelFolder
from consilience.errors import UsageError
from consilience.model.loading import load_parts
from consilience.questions import Question
from consilience.store import Store
from consilience.training.config import TrainConfig
from consilience.training.student import cut_student
from consilience.training.teaching import Teacher
from consilience.training.vocabulary import extend_vocabulary, read_lines

COPY = "knowledge"
"""Where under `output` a run keeps its copy of the store."""


@contextmanager
def opened_store(config: TrainConfig) -> Iterator[Store | None]:
    """The store of a run: the user's own, or a copy where its vectors will change."""
    if config.store is None:
        yield None
        return
    place = config.store
    if "passage_encoder" in config.train:
        place = config.output / COPY
        if not place.is_dir():
            _copy(config.store, place)
    with Store.open(place, create=False) as store:
        yield store


def forget_copy(config: TrainConfig) -> None:
    """Delete the copy of the store, so that the next is made of the store as it is now."""
    shutil.rmtree(config.output / COPY, ignore_errors=True)


def _copy(store: Path, place: Path) -> None:
    """A copy that is there whole or not at all."""
    Store.open(store, create=False).close()  # says what is wrong with it, and folds its log in
    part = place.with_name(f".{place.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(store, part)
    part.rename(place)


def starting_model(
    config: TrainConfig,
    *,
    teacher: Teacher | None,
    store: Store | None,
    sets: Sequence[Sequence[Question]],
    texts: Iterable[str] = (),
) -> tuple[str | Path | None, list[str]]:
    """The model that a run starts from: named, cut out of the teacher, or with new words.

    Args:
        config: The settings.
        teacher: Who teaches, if anybody does.
        store: Where new words are looked for, beside the questions.
        sets: The questions.
        texts: Plain text of the run, where new words are looked for, too.

    Returns:
        Its name or folder, and the words that are new to it.
    """
    if teacher is not None and config.distil.cuts:
        return cut_student(teacher.rag, config.distil, config.output / "start"), []
    if not config.vocabulary.tokens:
        return config.model, []
    place, origin = config.output / "start", load_parts(config.model).origin
    if not isinstance(origin, ModelFolder):
        raise UsageError(
            f"the vocabulary of {config.model} cannot be extended",
            hint="leave vocabulary out, or start from a model of this package's own format",
        )
    known = _texts_to_know(config, store, sets, texts)
    return place, extend_vocabulary(origin, known, count=config.vocabulary.tokens, place=place)


def _texts_to_know(
    config: TrainConfig,
    store: Store | None,
    sets: Sequence[Sequence[Question]],
    texts: Iterable[str],
) -> Iterator[str]:
    """What new words are looked for in."""
    if config.vocabulary.texts:
        for path in config.vocabulary.texts:
            yield from read_lines(path)
        return
    yield from texts
    for question in (one for each in sets for one in each):
        yield from (question.question, question.context, *question.answers)
    if store is not None:
        with store.changes(0) as changes:
            for batch in changes.added:
                yield from (f"{row.title}\n{row.text}" for row in batch)
