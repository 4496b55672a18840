"""Who may do what: subjects, and the one rule.

A subject is whoever sends a request: the holder of a key or, where there are no keys and no other
machine reaches the server, its owner. What is not granted is refused. Knows no request, no route
and no store; how a key is found is the affair of `keys`, and what a refusal looks like of `access`.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from consilience.store.access import visible

Action = Literal["read", "write", "admin"]
"""What a request does: look, change documents, or change the server. Each grants those before."""

ACTIONS: tuple[Action, ...] = get_args(Action)


@dataclass(frozen=True, slots=True)
class Subject:
    """Whoever sends a request.

    Attributes:
        id: Of the key; empty for the owner of a server without keys.
        name: For people.
        scopes: What it was granted.
        labels: The labels of which a labelled passage must carry one; None reads everything.
    """

    id: str
    name: str
    scopes: frozenset[Action]
    labels: frozenset[str] | None = None

    @property
    def reads_everything(self) -> bool:
        """Whether no passage is hidden, so that counts of the whole store tell nothing."""
        return self.labels is None


OWNER = Subject("", "owner", frozenset(ACTIONS))
"""Whoever is on the machine of a server that has no keys and that no other machine reaches."""


class Labelled(Protocol):
    """What has access labels: a passage, a document, a line of the list of documents."""

    @property
    def access(self) -> Collection[str]:
        """Labels of which a reader must hold at least one; empty means everyone may read."""
        ...


def authorise(subject: Subject | None, action: Action, passage: Labelled | None = None) -> bool:
    """Whether a subject may do something, to a passage or a document where one is given.

    This is the one rule; every route and every list comes down to it.

    Args:
        subject: Who asks; None for a request without a valid key, which may do nothing.
        action: What for.
        passage: What would be read or changed. What is hidden can be neither.
    """
    if subject is None:
        return False
    granted = any(action in ACTIONS[: ACTIONS.index(scope) + 1] for scope in subject.scopes)
    return granted and (passage is None or visible(passage.access, subject.labels))


def labels_told(subject: Subject, access: Collection[str]) -> list[str]:
    """The labels of a document as a subject may know them: of others it learns no names."""
    return sorted(label for label in access if visible((label,), subject.labels))
