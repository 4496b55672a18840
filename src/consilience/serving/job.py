"""One piece of background work: what it is, how far it is, and how it is told.

Plain frozen data. A job moves from `waiting` over `reading` and `embedding` to `done`, `failed` or
`cancelled`; an evaluation is `reading` all the while. Nothing here runs anything.
"""

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any, Literal, Self

from consilience.errors import ConsilienceError
from consilience.serving.subjects import Subject, authorise

Kind = Literal["document", "evaluation"]
State = Literal["waiting", "reading", "embedding", "done", "failed", "cancelled"]

ENDED: Collection[State] = ("done", "failed", "cancelled")
RETRIED: Collection[State] = ("failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of work.

    Attributes:
        kind: What is done.
        name: What it is done to, as people call it.
        owner: The id of the key that asked for it.
        held: The labels that key held; None for all.
        options: What else its kind needs to know, as JSON can hold it.
        digest: Of its file; empty where there is none, or none any more.
        total_bytes: Of its file.
        id: Of the job.
        created: When it was asked for, in UTC.
        state: How far it is.
        finished: When it ended.
        error: Why it failed: `kind`, `message` and `hint`.
        outcome: `added`, `updated` or `unchanged`, for a document that is done.
        rate: Passages, or questions, in a second.
        done_bytes: Of `total_bytes`.
        done: Questions answered, of an evaluation.
        total: Questions in all.
        passages: Passages committed.
        seconds_left: An estimate; None until there is one.
        version: Grows with every change of any job; those of an earlier start mean nothing.
    """

    kind: Kind
    name: str
    owner: str
    held: tuple[str, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""
    total_bytes: int = 0
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    created: str = field(default_factory=lambda: now())
    state: State = "waiting"
    finished: str | None = None
    error: Mapping[str, str] | None = None
    outcome: str = ""
    rate: float = 0.0
    done_bytes: int = 0
    done: int = 0
    total: int = 0
    passages: int = 0
    seconds_left: float | None = None
    version: int = 0

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it by itself."""
        return self.state in ENDED

    @property
    def running(self) -> bool:
        """Whether it is being worked at."""
        return self.state in ("reading", "embedding")

    def to_dict(self) -> dict[str, Any]:
        """What is told of it."""
        return {name: getattr(self, name) for name in _TOLD}

    def to_body(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @classmethod
    def of_body(cls, body: Mapping[str, Any]) -> Self:
        """The job of a body that an earlier version may have written."""
        known = {one.name for one in fields(cls)}
        job = cls(**{name: value for name, value in body.items() if name in known})
        return replace(job, held=None if job.held is None else tuple(job.held))

    def same_work(self, other: "Job") -> bool:
        """Whether another would do just the same."""
        return all(getattr(self, name) == getattr(other, name) for name in _WORK)

    def again(self) -> Self:
        """As it was before it was begun."""
        return replace(
            self,
            rate=0.0,
            done_bytes=0,
            done=0,
            passages=0,
            state="waiting",
            finished=None,
            error=None,
            outcome="",
            seconds_left=None,
        )

    def over(self, state: State, error: ConsilienceError | None = None) -> Self:
        """As it is at its end."""
        done = self.total_bytes if state == "done" else self.done_bytes
        told = None if error is None else told_of(error)
        ended = replace(self, state=state, finished=now(), error=told, done_bytes=done)
        return replace(ended, seconds_left=0.0 if state == "done" else None)


_TOLD = (
    *("id", "kind", "name", "state", "rate", "done_bytes", "total_bytes", "passages"),
    *("seconds_left", "error", "created", "finished", "outcome", "done", "total", "version"),
)
_WORK = ("kind", "name", "owner", "held", "options", "digest")


def sees(subject: Subject, job: Job) -> bool:
    """Whether a subject is told of a job: its own, and an admin of all.

    A name may be that of a document which others must not know of, so nobody else is.
    """
    return authorise(subject, "admin") or subject.id == job.owner


def told_of(error: ConsilienceError) -> dict[str, str]:
    """An error as a job tells it."""
    return {"kind": error.kind, "message": error.message, "hint": error.hint}


def now() -> str:
    """The time in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
