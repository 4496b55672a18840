"""The one root of every error this package raises, and its few kinds.

An error says what was wrong and what was received (`message`) and what to type next (`hint`). The
number of a kind is the exit code of the command line and the `code` of its JSON error document.
"""


class ConsilienceError(Exception):
    """The root: something was wrong and the user can act on it.

    Args:
        message: What was wrong, and what was received.
        hint: What to type or change next.
    """

    code = 1
    kind = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def to_dict(self) -> dict[str, int | str]:
        """The JSON form that the command line prints under the key `error`."""
        return {"code": self.code, "kind": self.kind, "message": self.message, "hint": self.hint}


class UsageError(ConsilienceError):
    """A wrong argument or an impossible combination of them."""

    code = 2
    kind = "usage"


class MissingError(ConsilienceError):
    """A store, a source, a passage, a model or a file that is not there."""

    code = 3
    kind = "missing"


class DamagedError(ConsilienceError):
    """A file of ours that does not hold what its manifest or schema says."""

    code = 4
    kind = "damaged"


class VersionError(ConsilienceError):
    """A store or a model that a newer version of this package wrote."""

    code = 5
    kind = "version"


class FingerprintError(ConsilienceError):
    """Vectors of one encoder asked for with another."""

    code = 6
    kind = "fingerprint"


class DocumentError(ConsilienceError):
    """A document that cannot be read; raised by readers, reported for each path by `add`."""

    code = 7
    kind = "document"


class DependencyError(ConsilienceError):
    """An optional package that is not installed; the hint is the line that installs it."""

    code = 8
    kind = "dependency"


class BusyError(ConsilienceError):
    """Another process holds what is needed and did not let go in time."""

    code = 9
    kind = "busy"


class RemoteError(ConsilienceError):
    """A service on another machine that fails, refuses, or answers what makes no sense.

    Args:
        message: What was wrong, and what was received.
        hint: What to type or change next.
        status: The HTTP status, when there was one.
    """

    code = 10
    kind = "remote"

    def __init__(self, message: str, *, hint: str = "", status: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status
