"""How a route states what it needs, and what a request that may not have it is told.

`Reader`, `Writer` and `Admin` are the dependencies; a route without one of them is public and must
be in the closed list of those, which `places` checks. A passage that a subject may not read is told
as one that does not exist, in the same words. The rule itself is `subjects.authorise`.
"""

from typing import Annotated

from fastapi import Request, Security
from fastapi.security import HTTPBearer

from consilience.errors import MissingError
from consilience.serving.errors import AuthenticationError, ForbiddenError
from consilience.serving.subjects import OWNER, Action, Labelled, Subject, authorise

__all__ = [
    "OWNER",
    "Action",
    "Admin",
    "Labelled",
    "Reader",
    "Subject",
    "Writer",
    "authorise",
    "missing_document",
    "missing_passage",
    "require",
    "subject_of",
]


def require(subject: Subject | None, action: Action) -> Subject:
    """The subject, when it may.

    Raises:
        AuthenticationError: There is no valid key.
        ForbiddenError: It was not granted that.
    """
    if subject is None:
        raise AuthenticationError(
            "no valid key was sent", hint="send the header Authorization: Bearer cs_…"
        )
    if not authorise(subject, action):
        granted = ", ".join(sorted(subject.scopes))
        raise ForbiddenError(
            f"this needs a key with the scope {action}; yours has {granted}",
            hint=f"consilience keys create NAME --scope {action}",
        )
    return subject


def missing_passage(id_: str) -> MissingError:
    """The one answer to an id that is not there and to one that is hidden."""
    return MissingError(
        f"there is no passage {_short(id_)!r}", hint="POST /v1/search lists passages with their ids"
    )


def missing_document(source: str) -> MissingError:
    """The one answer to a document that is not there and to one that is hidden."""
    return MissingError(
        f"there is no document {_short(source)!r}", hint="GET /v1/documents lists them"
    )


def _short(name: str) -> str:
    """A name out of a request as it may be repeated."""
    return name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…"


_SHOWN = 200

_BEARER = HTTPBearer(auto_error=False, description="A key of `consilience keys create`.")
"""Puts the scheme into the OpenAPI document; who asks was found before the body was read."""


def subject_of(request: Request) -> Subject | None:
    """Who the door found to be asking; None without a valid key."""
    found = request.scope.get("consilience.subject")
    return found if isinstance(found, Subject) else None


async def reader(request: Request, _: Annotated[object, Security(_BEARER)]) -> Subject:
    """The subject, who may read."""
    return require(subject_of(request), "read")


async def writer(request: Request, _: Annotated[object, Security(_BEARER)]) -> Subject:
    """The subject, who may change documents."""
    return require(subject_of(request), "write")


async def admin(request: Request, _: Annotated[object, Security(_BEARER)]) -> Subject:
    """The subject, who may change the server."""
    return require(subject_of(request), "admin")


Reader = Annotated[Subject, Security(reader)]
Writer = Annotated[Subject, Security(writer)]
Admin = Annotated[Subject, Security(admin)]
