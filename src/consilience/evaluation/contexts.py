"""Gold contexts as a knowledge base: each question reads the text that it came with, and no other.

The contexts are taken into a temporary store, each under a label of its own, and a question is
asked by a reader who holds only the label of its context. So what is measured is reading alone, and
everything else, splitting, fusion and citations, is as in any other store.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from consilience.documents import Document
from consilience.errors import UsageError
from consilience.questions import context_id

if TYPE_CHECKING:
    from consilience.encoding.base import Encoder
    from consilience.questions import Question
    from consilience.store import Store


def label_of(question: "Question") -> str:
    """The label, and the source, of a question's context."""
    return context_id(question.context, title=question.title)


@contextmanager
def store_of_contexts(
    questions: Sequence["Question"], encoder: "Encoder | None"
) -> Iterator["Store"]:
    """A store of the questions' contexts for the length of an evaluation.

    Args:
        questions: Each with a context.
        encoder: What embeds them.

    Raises:
        UsageError: A question has no context.
    """
    from consilience.store import Store

    _require_contexts(questions)
    documents = {label_of(one): _document(one) for one in questions}
    with (
        TemporaryDirectory(prefix="consilience-") as folder,
        Store.open(folder, encoder=encoder) as store,
    ):
        store.add(list(documents.values()))
        yield store


def _require_contexts(questions: Sequence["Question"]) -> None:
    bare = [place for place, one in enumerate(questions, start=1) if not one.context.strip()]
    if bare:
        raise UsageError(
            f"{len(bare)} of {len(questions)} questions have no context; the first is number "
            f"{bare[0]}: {questions[bare[0] - 1].question[:80]!r}",
            hint="evaluate them over a knowledge base: consilience evaluate DATA --store DIR",
        )


def _document(question: "Question") -> Document:
    label = label_of(question)
    return Document(question.context, source=label, title=question.title, access=(label,))
