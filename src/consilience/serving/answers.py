"""From a request to the options of an answer, and from hits and answers to their JSON form.

Shared by every way of asking: HTTP, the compatible one, and agents. Labels come from the subject
alone; no request can name its own.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from consilience.serving.subjects import Subject

if TYPE_CHECKING:
    from consilience.model import Answer, AskOptions
    from consilience.retrieval import Hit
    from consilience.store import Where


def ask_options(subject: Subject, *, where: "Where | None" = None, **options: Any) -> "AskOptions":
    """The options of a question that a subject asks.

    Args:
        subject: Whose labels confine it.
        where: The documents that are searched.
        **options: Further fields of `AskOptions`; those that are None keep their defaults.

    Raises:
        UsageError: As `AskOptions`.
    """
    from consilience.model import AskOptions

    given = {name: value for name, value in options.items() if value is not None}
    return AskOptions(access=subject.labels, where=where, **given)


def hit_document(hit: "Hit") -> dict[str, Any]:
    """The JSON form of a hit, as the command line prints it."""
    passage = hit.passage
    return {
        "id": passage.id,
        "score": hit.score,
        "title": passage.title,
        "source": passage.source,
        "page": passage.page,
        "start": passage.start,
        "end": passage.end,
        "text": passage.text,
    }


def answer_document(
    answer: "Answer", hits: "Sequence[Hit]", *, id_: str, explain: bool
) -> dict[str, Any]:
    """The JSON form of an answer: as the command line prints it, with its id and all passages.

    Args:
        answer: The answer.
        hits: The passages that it was summed over.
        id_: Of the question in work.
        explain: Whether the posterior of every token is told.
    """
    found = answer.to_dict(explain=explain)
    return {"id": id_, **found, "hits": [hit_document(hit) for hit in hits]}
