"""What goes wrong on the way to a server, in words that are the same for every engine.

Which of these it was is for each engine to tell, out of the errors of its client. What is told of
it has no password in it any more, and neither has the address that is shown.
"""

from consilience.errors import RemoteError
from consilience.retrieval.engines.base import UnavailableError


def late(shown: str, told: str) -> RemoteError:
    """The error for a server that is there and does not answer in time."""
    return RemoteError(
        f"{shown} did not answer in time: {told}",
        hint="is it overloaded? ask again, or look at its log",
    )


def unreached(shown: str, told: str) -> UnavailableError:
    """The error for a server that is not there, or hangs up."""
    return UnavailableError(
        f"{shown} cannot be reached: {told}",
        hint="look at the address, and whether the server is running",
    )


def nonsense(shown: str, told: str) -> RemoteError:
    """The error for an answer that no such server gives."""
    return RemoteError(
        f"{shown} answers what makes no sense: {told}",
        hint="is there something else at this address?",
    )


def refused(shown: str, told: str, *, status: int) -> RemoteError:
    """The error for a status of HTTP that has no meaning of its own; some may pass."""
    kind = UnavailableError if status in (429, 502, 503, 504) else RemoteError
    return kind(
        f"{shown} refused with status {status}: {told}",
        hint="see the log of the server",
        status=status,
    )
