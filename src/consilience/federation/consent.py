"""What a party lets others ask, and its book of what was asked.

    state/asked.jsonl       a line for every question: when, and who asked, as they call themselves

Nothing unless the party's own file says so. The book holds no word of any question; a question is
written there before it is answered. Sees neither questions nor passages, so that its refusals may
be told to whoever asked.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import time

from consilience.errors import BusyError, DamagedError, FingerprintError, UsageError
from consilience.federation.config import AskingSettings
from consilience.federation.durable import PRIVATE_FILE, private_folder
from consilience.training.lines import Lines

DAY = 24 * 3600.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A question that was asked.

    Attributes:
        at: Seconds since 1970.
        asker: Who asked, as they call themselves; who may ask at all, keys decide.
    """

    at: float
    asker: str


class Book:
    """The questions that a party was asked.

    Args:
        path: The file; made with the first question.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> Iterator[Entry]:
        """Every question, the oldest first.

        Raises:
            DamagedError: A line of the book is none.
        """
        try:
            for found in self._lines().values:
                yield Entry(float(found["at"]), str(found["asker"]))
        except (DamagedError, ValueError, KeyError, TypeError) as error:
            raise DamagedError(
                f"{self.path} holds a line that is no question",
                hint="take the line out; without the book nobody knows what was asked",
            ) from error

    def enter(self, asker: str) -> None:
        """Write a question down; it has reached the disk when this returns.

        Raises:
            UsageError: The disk is full or may not be written to.
        """
        private_folder(self.path.parent)
        self._lines().add({"at": round(time(), 3), "asker": asker})

    def _lines(self) -> Lines:
        """A line that was not written to its end is of a question that was not answered."""
        return Lines(self.path, mode=PRIVATE_FILE, durable=True)


@dataclass(frozen=True, slots=True)
class Consent:
    """A party's yes, as far as it goes.

    Attributes:
        party: Its name.
        settings: As its own file says.
        book: Of what was asked.
    """

    party: str
    settings: AskingSettings
    book: Book

    def require_any(self) -> None:
        """Refuse where the party answers nobody.

        Raises:
            UsageError: It does not.
        """
        if self.settings.tells == "nothing":
            raise UsageError(
                f"{self.party} answers no questions",
                hint="a party that wants to says so in its own file: asking: {tells: answer}",
            )

    def require_model(self, asked: str, own: str) -> None:
        """Refuse another model than the party's own.

        Raises:
            FingerprintError: Scores and likelihoods of two models cannot be added up.
        """
        if asked != own:
            raise FingerprintError(
                f"the model of {self.party} is {own}, the asker's {asked[:64]}",
                hint="all parties and the asker need the same model",
            )

    def enter(self, asker: str) -> None:
        """Count one more question.

        Raises:
            BusyError: So many were asked within a day that there is none left.
            DamagedError: The book is not whole.
        """
        most, since = self.settings.a_day, time() - DAY
        if most is not None and sum(one.at > since for one in self.book.entries()) >= most:
            raise BusyError(
                f"{self.party} answers {most} questions within 24 hours, and was asked so many",
                hint="ask again tomorrow",
            )
        self.book.enter(asker)
