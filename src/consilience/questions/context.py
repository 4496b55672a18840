"""The passages that come along with questions, so that a store can be made of them.

Questions name passages by id. Where a file gives none, the id is a digest of the title and the
text, so the same passage has the same name whichever question it came with.
"""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Context:
    """A passage that came with a question.

    Attributes:
        id: As it stands in `positive_ids` and `negative_ids`.
        title: Empty where the file gives none.
        text: The passage.
    """

    id: str
    title: str
    text: str


def context_id(text: str, *, title: str = "") -> str:
    """The name of a passage that has none: a digest of its title and text."""
    digest = hashlib.sha256(f"{title}\n{text}".encode(errors="surrogatepass"))
    return f"context-{digest.hexdigest()[:16]}"
