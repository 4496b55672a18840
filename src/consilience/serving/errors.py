"""What a request can do wrong beyond what a command can, and how every error looks over HTTP.

Each kind of error has one status. What an error says about the server's own files is for admins:
whoever else asks is told the kind, the number of the request, and that the operator has the rest in
the log. Knows no route.
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from consilience.errors import ConsilienceError, UsageError
from consilience.serving.words import Language, explanation, told_to_operator


class AuthenticationError(ConsilienceError):
    """No key where one is needed, or one that is unknown, revoked or expired."""

    code = 11
    kind = "unauthenticated"


class ForbiddenError(ConsilienceError):
    """A key that may not do this, or a page of another site that asks in someone's name."""

    code = 12
    kind = "forbidden"


class TooLargeError(ConsilienceError):
    """A body above the limit."""

    code = 13
    kind = "too_large"


class SlowError(ConsilienceError):
    """A body that did not arrive in time."""

    code = 14
    kind = "slow"


class RateError(ConsilienceError):
    """More requests with one key than it may make.

    Args:
        message: What was wrong, and what was received.
        hint: What to do next.
        retry_after: Seconds after which to try again.
    """

    code = 15
    kind = "rate"

    def __init__(self, message: str, *, hint: str = "", retry_after: int = 1) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class OverloadedError(ConsilienceError):
    """As many requests as there is room for are in work, or the server is about to stop.

    Args:
        message: What was wrong, and what was received.
        hint: What to do next.
        retry_after: Seconds after which to try again.
    """

    code = 16
    kind = "overloaded"

    def __init__(self, message: str, *, hint: str = "", retry_after: int = 1) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class StoppedError(ConsilienceError):
    """A question that was stopped before it was answered."""

    code = 17
    kind = "stopped"


class MethodError(UsageError):
    """An address that is there, asked in a way that it does not take.

    Args:
        method: As it was asked.
        allowed: How it may be asked.
    """

    def __init__(self, method: str, allowed: Collection[str]) -> None:
        self.allowed = ", ".join(sorted(allowed))
        super().__init__(
            f"this address does not take {method[:_LONGEST_METHOD]!r}",
            hint=f"it takes {self.allowed}",
        )


_LONGEST_METHOD = 20

STATUS: Mapping[str, int] = MappingProxyType(
    {
        "error": 500,
        "internal": 500,
        "usage": 400,
        "missing": 404,
        "damaged": 500,
        "version": 500,
        "fingerprint": 409,
        "document": 422,
        "dependency": 501,
        "busy": 409,
        "remote": 502,
        "unauthenticated": 401,
        "forbidden": 403,
        "too_large": 413,
        "slow": 408,
        "rate": 429,
        "overloaded": 503,
        "stopped": 409,
    }
)
"""The HTTP status of every kind."""

OF_THE_SERVER = frozenset(
    {"error", "internal", "damaged", "version", "fingerprint", "dependency", "busy", "remote"}
)
"""Kinds whose text may name files of the server, or machines behind it."""


def status_of(error: ConsilienceError) -> int:
    """The HTTP status of an error; one of a kind that is not known here is the server's."""
    return 405 if isinstance(error, MethodError) else STATUS.get(error.kind, 500)


def headers_of(error: ConsilienceError) -> dict[str, str]:
    """What a client needs beside the body: when to come back, and how to say who it is."""
    if isinstance(error, RateError | OverloadedError):
        return {"Retry-After": str(error.retry_after)}
    if error.kind == "busy":
        return {"Retry-After": "1"}
    if isinstance(error, MethodError):
        return {"Allow": error.allowed}
    return {"WWW-Authenticate": "Bearer"} if error.kind == "unauthenticated" else {}


def error_body(
    error: ConsilienceError, *, language: Language, request_id: str, full: bool
) -> dict[str, Any]:
    """The JSON body of an error.

    Args:
        error: What happened.
        language: Of the sentence that explains the kind.
        request_id: The number of the request.
        full: Whether whoever asked may read about the server's own files.
    """
    told: dict[str, Any] = error.to_dict()
    if error.kind in OF_THE_SERVER and not full:
        message, hint = told_to_operator(language, request_id)
        told |= {"message": message, "hint": hint}
    return {"error": {**told, "explanation": explanation(error.kind, language)}}


def internal_error(error: BaseException) -> ConsilienceError:
    """A mistake of this package as an error with a kind; what it says is left to the log."""
    found = ConsilienceError(
        f"{type(error).__name__}: the server made a mistake",
        hint="report it with the log line of this request",
    )
    found.kind = "internal"
    return found
