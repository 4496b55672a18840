"""Errors as answers: every way in which a request can fail ends in one shape of JSON.

Knows requests and errors. What of an input was wrong is named by its place; the input itself, which
may be a question or a document, is never repeated.
"""

import json
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import HTTPException, RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException as StarletteHTTPException

from consilience.errors import ConsilienceError, MissingError, UsageError
from consilience.serving.access import subject_of
from consilience.serving.errors import error_body, headers_of, status_of
from consilience.serving.subjects import authorise
from consilience.serving.words import language_of_header

_MISTAKES = 10
"""How many mistakes of a request are told."""

_LONGEST_PLACE = 100


class FailureTold(BaseModel):
    """What an error says."""

    code: int
    kind: str
    message: str
    hint: str
    explanation: str


class Failure(BaseModel):
    """The body of every answer that is not a success."""

    error: FailureTold


RESPONSES: dict[int | str, dict[str, Any]] = {
    kind: {"model": Failure, "description": "What was wrong, and what to do next."}
    for kind in ("4XX", "5XX")
}
"""How failures are described in the OpenAPI document."""


class RefusedBodyError(HTTPException):
    """An error found while a body is read, in the one form that passes through the framework.

    Args:
        error: What was wrong.
    """

    def __init__(self, error: ConsilienceError) -> None:
        super().__init__(status_of(error))
        self.error = error


def install(app: FastAPI) -> None:
    """Answer every error of an application in our shape."""
    app.add_exception_handler(ConsilienceError, _of_ours)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(StarletteHTTPException, _of_framework)


def failure_body(request: Request, error: ConsilienceError) -> dict[str, Any]:
    """The body of an error, as this request may see it."""
    return error_body(
        error,
        language=language_of_header(request.headers.get("accept-language", "")),
        request_id=str(request.scope.get("consilience.request_id", "")),
        full=authorise(subject_of(request), "admin"),
    )


def failure(
    request: Request,
    error: ConsilienceError,
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An error as an answer.

    Args:
        request: What is answered.
        error: What was wrong.
        status: Of HTTP; None for that of the kind.
        headers: Further ones.
    """
    request.scope["consilience.error"] = error
    return Response(
        json.dumps(failure_body(request, error)),
        status_code=status or status_of(error),
        media_type="application/json",
        headers={**headers_of(error), **(headers or {})},
    )


async def _of_ours(request: Request, error: Exception) -> Response:
    if not isinstance(error, ConsilienceError):
        raise error
    return failure(request, error)


async def _of_validation(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    return failure(request, _usage_of(error), status=422)


async def _of_framework(request: Request, error: Exception) -> Response:
    if isinstance(error, RefusedBodyError):
        return failure(request, error.error, headers={"Connection": "close"})
    if not isinstance(error, StarletteHTTPException):
        raise error
    found = _named(error.status_code, request)
    return failure(request, found, status=error.status_code, headers=error.headers)


def _named(status: int, request: Request) -> ConsilienceError:
    if status == 404:
        return MissingError("there is nothing at this address", hint="GET /openapi.json lists all")
    if status == 405:
        return UsageError(
            f"this address does not take {request.method}", hint="GET /openapi.json lists all"
        )
    return UsageError("the body of the request cannot be read", hint="send it as JSON in UTF-8")


def _usage_of(error: RequestValidationError) -> UsageError:
    """All mistakes of a request, each with its place, none with what stood there."""
    found = [_told(mistake) for mistake in error.errors()[:_MISTAKES]]
    more = len(error.errors()) - len(found)
    rest = f"; and {more} more" if more > 0 else ""
    return UsageError("; ".join(found) + rest, hint="GET /openapi.json says what is expected")


def _told(mistake: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in mistake["loc"])[:_LONGEST_PLACE]
    return f"{place}: {mistake['msg']}"
