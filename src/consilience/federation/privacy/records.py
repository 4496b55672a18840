"""Which questions are one record: what is protected as a whole, with everything that hangs on it.

A record is what neighbouring data sets differ in. Whatever is asked twice is one question; a
question about passages of two documents makes them one record, for taking either away takes the
question away.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from consilience.errors import UsageError
from consilience.training.data import question_key
from consilience.training.examples import Example
from consilience.training.proposals import PassageIndex

Unit = Literal["question", "user", "document"]


def records_of(
    examples: Sequence[Example], unit: Unit, *, index: PassageIndex | None
) -> list[list[Example]]:
    """The examples, record by record, in the order in which records are first met.

    Args:
        examples: What is learned from.
        unit: What a record is.
        index: Which document a passage is of; None where no store is open.

    Raises:
        UsageError: A question that does not say whose record it is.
    """
    if unit == "document":
        return _joined(examples, [_documents(one, index) for one in examples])
    name = question_key if unit == "question" else str
    told = [one.question if unit == "question" else one.user for one in examples]
    return _joined(examples, [{name(one)} if one else set() for one in told], unit)


def _documents(example: Example, index: PassageIndex | None) -> set[str]:
    """The documents that a question is about; a passage outside the store is one by itself."""
    passage = () if example.passage is None else (example.passage.id,)
    names = dict.fromkeys((*passage, *example.positive_ids))
    places = {name: None if index is None else index.place(name) for name in names}
    found = {name for name, place in places.items() if place is None}
    if index is not None:
        known = [place for place in places.values() if place is not None]
        found |= {one.source for one in index.passages(known)}
    return found


def _joined(
    examples: Sequence[Example], owners: Sequence[set[str]], unit: Unit = "document"
) -> list[list[Example]]:
    """Examples that share an owner, directly or by way of others."""
    if missing := sum(not one for one in owners):
        key = {"user": "user", "document": "positive_ids"}.get(unit, "question")
        raise UsageError(
            f"privacy.unit is {unit}, but {missing} of {len(owners)} questions name no {unit}",
            hint=f'give each line "{key}", or set privacy.unit to question',
        )
    head = _heads(owners)
    records: dict[str, list[Example]] = {}
    for example, names in zip(examples, owners, strict=True):
        records.setdefault(head(next(iter(names))), []).append(example)
    return list(records.values())


def _heads(owners: Iterable[set[str]]) -> Callable[[str], str]:
    """From an owner to the one that stands for all that hang together with it."""
    above: dict[str, str] = {}

    def head(name: str) -> str:
        while above.setdefault(name, name) != name:
            above[name] = above[above[name]]
            name = above[name]
        return name

    for first, *others in owners:
        for other in others:
            above[head(other)] = head(first)
    return head
