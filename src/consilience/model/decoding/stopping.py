"""Where stop strings begin in what a generator has written.

A vocabulary has an alphabet of its own: one without capitals never writes `Note`, one of word
pieces writes `21 : 15`. So a stop string is looked for as it was given and as the vocabulary would
write it.
"""

from collections.abc import Sequence

from consilience.generation import Generator
from consilience.generation.base import Tokenising


class Stops:
    """Stop strings in the spelling of a generator.

    Args:
        generator: Whose text is looked at.
        stops: The strings, none of them empty.
    """

    def __init__(self, generator: Generator, stops: Sequence[str]) -> None:
        self._meant = {form: stop for stop in stops for form in _forms(generator, stop)}

    def first(self, text: str) -> str | None:
        """The stop string that begins first in a text, or None."""
        here = [form for form in self._meant if form in text]
        return self._meant[min(here, key=text.index)] if here else None

    def before(self, text: str) -> str:
        """Text up to where the first of them begins."""
        return text[: min((text.index(form) for form in self._meant if form in text), default=None)]

    def may_begin(self, text: str) -> bool:
        """Whether a text holds one of them, or ends with the beginning of one."""
        return any(
            form in text or any(text.endswith(form[:n]) for n in range(1, len(form)))
            for form in self._meant
        )


def _forms(generator: Generator, stop: str) -> list[str]:
    if not isinstance(generator, Tokenising):
        return [stop]
    *ids, _ = generator.answer_ids(stop)
    written = generator.decode(ids).strip()
    return [stop, written] if written else [stop]
