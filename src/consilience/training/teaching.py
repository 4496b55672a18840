"""The teacher of a run: loaded, with the vectors of the store as it made them, and never changed.

The store that a run is given holds the teacher's vectors; the student's own are made where its
passage encoder learns. Both indexes have the same passages at the same places, so that what the
teacher proposes the student can read. Answers that the teacher gives are kept in the run's folder,
since they cost more than a step does.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from consilience.encoding.compact import CompactEncoder
from consilience.errors import UsageError
from consilience.model.asking import AskOptions
from consilience.model.rag import Rag
from consilience.model.text_encoder import TextEncoder
from consilience.questions import Question
from consilience.store import Store, require_fingerprint
from consilience.training.config import TrainConfig
from consilience.training.learner import Learner
from consilience.training.lines import Lines
from consilience.training.proposals import PassageIndex
from consilience.training.work import LearnerOptions, Work

SHIPPED = "shipped"
"""The name, in a config, of the model that ships."""


@dataclass(frozen=True, slots=True)
class Teacher:
    """A model that teaches.

    Attributes:
        rag: The model.
        store: Whose vectors are the teacher's.
        index: Of that store.
    """

    rag: Rag
    store: Store
    index: PassageIndex

    def learner(self, options: LearnerOptions) -> Learner:
        """The teacher as the objectives ask it: nothing of it moves.

        Args:
            options: The student's.
        """
        encoder = self.rag.encoder
        texts = encoder if isinstance(encoder, CompactEncoder | TextEncoder) else None
        self.rag.model.requires_grad_(False)
        told = replace(options, moving=False, over=1)
        return Learner(self.rag.model.eval(), texts, index=self.index, options=told)


@contextmanager
def opened_teacher(config: TrainConfig) -> Iterator[Teacher | None]:
    """The teacher of a run, whose store is open; None for a run without.

    Raises:
        MissingError: There is no such model, or no such store.
        FingerprintError: The store's vectors are not the teacher's.
        UsageError: The store is empty.
    """
    name = config.distil.teacher
    if name is None or config.store is None:
        yield None
        return
    rag = Rag.load(None if name == SHIPPED else name, precision="float32")
    with Store.open(config.store, create=False) as store:
        if rag.encoder is not None:
            require_fingerprint(store, rag.encoder)
        yield Teacher(rag, store, PassageIndex(store))


def require_same_passages(teacher: PassageIndex, student: PassageIndex) -> None:
    """Places in one index must be places in the other.

    Raises:
        UsageError: The store has changed since the run made its copy.
    """
    if teacher.names != student.names:
        raise UsageError(
            "the store has changed since this run began: teacher and student no longer have the "
            "same passages",
            hint="choose another output folder, or put the store back",
        )


def fit_states(learner: Learner, example: Work) -> None:
    """Give a learner the projection that its student's states need to be compared.

    Args:
        learner: With a teacher, before its optimiser is made.
        example: Of one question; only widths are looked at.
    """
    if "distil_states" not in learner.mixture.active or example.teacher is None:
        return
    own, wanted = (_width(work) for work in (example, example.teacher))
    if own != wanted:
        projection = nn.Linear(own, wanted, bias=False)
        learner.projection = nn.Parameter(projection.weight.detach().T.contiguous())


def _width(work: Work) -> int:
    return int(getattr(work.memory, "states", work.question_vectors).shape[-1])


def answered_by(
    teacher: Teacher,
    questions: Sequence[Question],
    place: Path,
    *,
    k: int,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> list[Question]:
    """The questions with the teacher's answers in the place of their own.

    What it withholds is unanswerable to the student too. Answers are kept line by line, so that an
    interrupted run asks for the rest only.

    Source: Kim and Rush, 2016, "Sequence-Level Knowledge Distillation".

    Args:
        teacher: Who answers.
        questions: With or without answers.
        place: The file in which answers are kept.
        k: Passages that an answer is summed over.
        progress: Told how many are answered, and how many there are.
    """
    lines = Lines(place)
    known: dict[str, str] = dict(lines.values)
    for done, question in enumerate(questions):
        key = _key(question)
        if key not in known:
            options = AskOptions(k=k, history=question.history)
            known[key] = teacher.rag.ask(question.question, teacher.store, options).text
            lines.add([key, known[key]])
        progress(done + 1, len(questions))
    return [_with_answer(question, known[_key(question)]) for question in questions]


def _key(question: Question) -> str:
    return json.dumps([question.question, [[t.question, t.answer] for t in question.history]])


def _with_answer(question: Question, text: str) -> Question:
    if not text:
        return replace(question, answers=(), unanswerable=True)
    return replace(question, answers=(text,), unanswerable=False)
