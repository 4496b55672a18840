"""Filters: which documents a search is confined to, as a value that every engine understands.

A filter is a conjunction of fields, each with the values that it may have. What is a field and what
is not is decided here, so that a misspelt one is an error and never an empty result. Nothing here
runs a statement; the store and every engine say in their own language what a `Where` means.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from consilience.errors import UsageError

METADATA = "metadata."
"""What the name of a field begins with that is looked up in a document's metadata."""

FIELDS = ("source", "contributor", "language")
"""Fields that every document has."""


@dataclass(frozen=True, slots=True)
class Where:
    """Which documents a search is confined to; what is empty does not confine.

    Attributes:
        sources: Names of documents; one that ends with `/` stands for all that begin with it.
        contributors: Who brought them in.
        languages: `zh`, `en`, or empty text for documents of no known language.
        metadata: Pairs of a key of the metadata and a value; values of one key are alternatives.
    """

    sources: tuple[str, ...] = ()
    contributors: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        """Whether it confines at all."""
        return bool(self.sources or self.contributors or self.languages or self.metadata)

    def by_key(self) -> dict[str, list[str]]:
        """The alternatives of every key of metadata that is asked for."""
        keys: dict[str, list[str]] = {}
        for key, value in self.metadata:
            keys.setdefault(key, []).append(value)
        return keys

    @classmethod
    def parse(cls, conditions: Iterable[str]) -> "Where":
        """A filter out of conditions as they are typed: `contributor=ward 3`, `metadata.year=2024`.

        Raises:
            UsageError: One is no `FIELD=VALUE`, or its field is unknown.
        """
        return cls.of([_split(condition) for condition in conditions])

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]] | Mapping[str, str]) -> "Where":
        """A filter out of pairs of a field and a value.

        Raises:
            UsageError: A field is unknown.
        """
        found: dict[str, list[str]] = {field: [] for field in FIELDS}
        metadata: list[tuple[str, str]] = []
        for field, value in pairs.items() if isinstance(pairs, Mapping) else pairs:
            if field.startswith(METADATA) and len(field) > len(METADATA):
                metadata.append((field.removeprefix(METADATA), value))
            elif field in found:
                found[field].append(value)
            else:
                raise unknown_field(field)
        sources, contributors, languages = (tuple(found[field]) for field in FIELDS)
        return cls(sources, contributors, languages, tuple(metadata))


def _split(condition: str) -> tuple[str, str]:
    field, equals, value = condition.partition("=")
    if not equals:
        raise UsageError(
            f"a filter is FIELD=VALUE, received {condition!r}",
            hint="for instance contributor=finance or metadata.year=2024",
        )
    return field.strip(), value.strip()


def unknown_field(field: str, keys: Iterable[str] = ()) -> UsageError:
    """The error for a field that no document has.

    Args:
        field: As it was asked for.
        keys: The keys of metadata that there are, where they are known.
    """
    known = [*FIELDS, *(f"{METADATA}{key}" for key in sorted(keys))]
    more = "" if keys else f", {METADATA}KEY"
    return UsageError(
        f"there is no field {field!r} to filter by", hint=f"One of: {', '.join(known)}{more}."
    )
