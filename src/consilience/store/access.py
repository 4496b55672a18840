"""Access labels: the one rule for who may read a passage, shared by the store and every index.

A passage without labels is for everyone. A passage with labels is for readers who hold at least one
of them. The owner of the store, who passes None, reads everything. Nothing here knows who a reader
is or how labels were granted.
"""

from collections.abc import Collection


def visible(access: Collection[str], held: Collection[str] | None) -> bool:
    """Whether a reader who holds the labels `held` may read a passage labelled `access`.

    Args:
        access: The labels of the passage; empty means everyone may read it.
        held: The labels of the reader; None means the owner. A bare string counts as one label,
            so that a forgotten pair of brackets never grants its letters.
    """
    if held is None or not access:
        return True
    labels = {held} if isinstance(held, str) else held
    return any(label in labels for label in access)


def valid_labels(access: object) -> bool:
    """Whether `access` is a collection of labels: text, none empty, and not one bare string.

    A character of value zero is none of a label's: not every engine can tell it from another.
    """
    if isinstance(access, str) or not isinstance(access, Collection):
        return False
    return all(isinstance(label, str) and label and "\0" not in label for label in access)
