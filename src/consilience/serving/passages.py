"""A passage in its document: the text before and after it, so that a reader can judge it."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from consilience.serving.access import missing_passage
from consilience.serving.subjects import Subject, labels_told

if TYPE_CHECKING:
    from consilience.serving.service import Service

MOST_CONTEXT = 20_000
"""The most characters of text before a passage, and as many after it."""


def with_context(
    service: "Service", subject: Subject, id_: str, *, context: int = 400
) -> dict[str, Any]:
    """A passage that a subject may read, with the text around it; blocks.

    Args:
        service: Where it is looked for.
        subject: Who reads.
        id_: Of the passage.
        context: Characters before it, and as many after it.

    Raises:
        MissingError: There is none, it is hidden, or its document was changed this moment.
    """
    passage = service.passage(subject, id_)
    document = service.document(subject, passage.source)
    if document.text[passage.start : passage.end] != passage.text:
        raise missing_passage(id_)
    found = asdict(passage) | {"access": labels_told(subject, passage.access)}
    around = {
        "before": document.text[max(0, passage.start - context) : passage.start],
        "after": document.text[passage.end : passage.end + context],
    }
    about = {
        "source": document.source,
        "title": document.title,
        "language": document.language,
        "pages": len(document.pages),
    }
    return found | around | {"document": about}
