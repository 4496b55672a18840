"""Values that came out of a file, each taken by its key with the type it must have.

What is not as expected becomes a `DocumentError` that names the place, the key and what stood
there. Nothing is guessed and nothing is passed over in silence.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from consilience.errors import DocumentError

MOST_NAMED = 10
"""Faults that an error names; of the others it says how many there are."""

_SHOWN = 60  # characters of a received value that a message repeats


@dataclass(frozen=True, slots=True)
class Fields:
    """One object of a file.

    Attributes:
        place: Where it stands, such as `line 3` or `record 2, paragraphs[0]`.
        values: Its keys and values.
    """

    place: str
    values: Mapping[str, object]

    def text(self, key: str) -> str:
        """The text under a key; empty when the key is not there or null."""
        value = self.values.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            self.refuse(key, "a text")
        return self._whole(key, value)

    def required(self, key: str) -> str:
        """The text under a key that must be there and say something."""
        if key not in self.values:
            raise DocumentError(
                f"{self.place}, key {key!r}: it is missing; there are {_keys(self.values)}"
            )
        if not (text := self.text(key)).strip():
            self.refuse(key, "a text that says something")
        return text

    def name(self, key: str) -> str:
        """An identifier or a label under a key; whole numbers are taken as text."""
        value = self.values.get(key)
        return str(value) if _is_whole_number(value) else self.text(key)

    def names(self, key: str) -> tuple[str, ...]:
        """Identifiers under a key, without repetitions, in their order."""
        found = (item.name(str(key)) for item in self._items(key, "a list of names"))
        return tuple(dict.fromkeys(filter(None, found)))

    def texts(self, key: str) -> tuple[str, ...]:
        """Texts under a key, each of which must say something; repetitions are kept once."""
        found = (item.required(str(key)) for item in self._items(key, "a list of texts"))
        return tuple(dict.fromkeys(found))

    def flag(self, key: str) -> bool:
        """Whether what a key asks is true; false when the key is not there."""
        value = self.values.get(key)
        if value is None:
            return False
        if not isinstance(value, bool):
            self.refuse(key, "true or false")
        return value

    def objects(self, key: str, *, must: bool = False) -> list["Fields"]:
        """The objects in the list under a key.

        Args:
            key: Its name.
            must: Whether the key has to be there.
        """
        value = self.values.get(key)
        if value is None and not must:
            return []
        if not isinstance(value, list):
            self.refuse(key, "a list of objects")
        return [self._object(key, index, item) for index, item in enumerate(value)]

    def refuse(self, key: str, expected: str) -> NoReturn:
        """Raise for the value under a key."""
        received = shown(self.values.get(key))
        raise DocumentError(f"{self.place}, key {key!r}: expected {expected}, received {received}")

    def _object(self, key: str, index: int, item: object) -> "Fields":
        place = f"{self.place}, {key}[{index}]"
        if not isinstance(item, dict):
            raise DocumentError(f"{place}: expected an object, received {shown(item)}")
        return Fields(place, item)

    def _items(self, key: str, expected: str) -> list["Fields"]:
        value = self.values.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            self.refuse(key, expected)
        return [Fields(self.place, {key: item}) for item in value]

    def _whole(self, key: str, text: str) -> str:
        if any("\ud800" <= character <= "\udfff" for character in text):
            self.refuse(key, "a text of whole characters")
        return text


def shown(value: object) -> str:
    """A value as a message repeats it: as JSON, shortened, with the kind it is of."""
    try:
        written = json.dumps(value, ensure_ascii=False, default=str)
    except RecursionError:
        written = "…"
    written = written.encode("utf-8", "backslashreplace").decode()
    short = written if len(written) <= _SHOWN else f"{written[:_SHOWN]}…"
    return f"{short} ({_KINDS.get(type(value), type(value).__name__)})"


def unreadable(name: str, faults: Sequence[str], *, hint: str) -> DocumentError:
    """One error for everything that is wrong in a file or table; names the first ten."""
    places = "1 place" if len(faults) == 1 else f"{len(faults)} places"
    rest = [f"and {len(faults) - MOST_NAMED} more"] if len(faults) > MOST_NAMED else []
    listed = "".join(f"\n  {fault}" for fault in [*faults[:MOST_NAMED], *rest])
    return DocumentError(f"{name}: wrong in {places}{listed}", hint=hint)


_KINDS: dict[type, str] = {
    str: "text",
    int: "number",
    float: "number",
    bool: "truth value",
    list: "list",
    dict: "object",
    type(None): "nothing",
}


def _is_whole_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _keys(values: Mapping[str, object]) -> str:
    names = [str(key)[:_SHOWN] for key in list(values)[:12]]
    return ", ".join(map(repr, names)) or "none"
