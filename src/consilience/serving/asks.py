"""Questions in work: whose they are, so that nobody else can stop them.

Lives on the event loop and needs no locks. Knows tickets only as something that can be stopped.
"""

from dataclasses import dataclass, field
from typing import Protocol

from consilience.errors import MissingError
from consilience.serving.subjects import Subject, authorise


class Stoppable(Protocol):
    """A question in work."""

    @property
    def id(self) -> str:
        """Its name, which cannot be guessed."""
        ...

    def cancel(self) -> None:
        """Stop the work at its next step."""
        ...


@dataclass(slots=True)
class Asks:
    """Every question in work over HTTP.

    Attributes:
        running: The ticket of each, and the key that asked.
    """

    running: dict[str, tuple[Stoppable, str]] = field(default_factory=dict)

    def begin(self, ticket: Stoppable, subject: Subject) -> None:
        """Note whose a question is."""
        self.running[ticket.id] = (ticket, subject.id)

    def end(self, ticket: Stoppable) -> None:
        """Forget a question, and stop what is left of its work."""
        self.running.pop(ticket.id, None)
        ticket.cancel()

    def stop(self, id_: str, subject: Subject) -> None:
        """Stop a question.

        Raises:
            MissingError: There is none, it is finished, or it is somebody else's.
        """
        ticket, asker = self.running.get(id_, (None, ""))
        if ticket is None or not (asker == subject.id or authorise(subject, "admin")):
            raise MissingError(
                "no such question is in work", hint="the event `start` has the id of a question"
            )
        ticket.cancel()
