"""The backlog: jobs wait, run one after the other, can be cancelled and tried again, and survive.

Each kind of work has one thread, since what it does keeps the processor busy. Every change of state
is on disk before it is told, so that a job which a stop or a kill interrupts is waiting again at
the next start, its file still there. Knows nothing of documents and models: what a job does is a
`Work`, looked up by its kind.
"""

import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

from consilience.errors import ConsilienceError, MissingError, UsageError
from consilience.serving.errors import OverloadedError, internal_error
from consilience.serving.job import RETRIED, Job, Kind, sees
from consilience.serving.ledger import Ledger
from consilience.serving.shelf import Shelf
from consilience.serving.subjects import Subject
from consilience.serving.uploads import Uploaded

Listener = Callable[[Job | None], None]
"""Told of every change of a job, and of the end by None, from whichever thread; must not block."""

LIST = "GET /v1/jobs lists the jobs"


class CancelledError(Exception):
    """The work was told to stop, and has."""


class Told:
    """What a work hears and says while it runs.

    Args:
        backlog: Whose it is.
        id_: Of the job.

    Attributes:
        given_up: Whether somebody cancelled it; else it is to be gone on with.
        withdrawn: Whether that was because its document is deleted.
    """

    def __init__(self, backlog: "Backlog", id_: str) -> None:
        self._backlog, self._id = backlog, id_
        self._stop = threading.Event()
        self.given_up = False
        self.withdrawn = False

    def cancelled(self) -> bool:
        """Whether to stop at the next good place."""
        return self._stop.is_set()

    def wait(self, seconds: float) -> None:
        """Do nothing for a while, or until it is time to stop."""
        self._stop.wait(seconds)

    def progress(self, **changes: Any) -> None:
        """Say how far it is: fields of the job."""
        self._backlog.update(self._id, **changes)

    def stop(self) -> None:
        """Tell the work to stop."""
        self._stop.set()


class Work(Protocol):
    """What the jobs of one kind do."""

    def __call__(self, job: Job, told: Told) -> Job:
        """Do it.

        Returns:
            The job with what came of it.

        Raises:
            CancelledError: It was told to stop. Nothing half done is left.
            ConsilienceError: It failed.
        """
        ...


@dataclass(frozen=True, slots=True)
class BacklogLimits:
    """How much may pile up.

    Attributes:
        waiting: Jobs that wait.
        waiting_bytes: Bytes of the files that they wait with.
        history: Jobs that are over and still told of.
        kept_bytes: Bytes of the files of those that could be tried again.
    """

    waiting: int = 2000
    waiting_bytes: int = 4_000_000_000
    history: int = 500
    kept_bytes: int = 1_000_000_000


class Backlog:
    """All jobs.

    Args:
        ledger: Where they are remembered.
        shelf: Where their files are.
        limits: How much may pile up.
        on_change: Told of every change.
    """

    def __init__(
        self,
        ledger: Ledger,
        shelf: Shelf,
        *,
        limits: BacklogLimits | None = None,
        on_change: Listener | None = None,
    ) -> None:
        self._ledger, self._shelf = ledger, shelf
        self._limits = limits or BacklogLimits()
        self._listeners: list[Listener] = [] if on_change is None else [on_change]
        self._changed = threading.Condition(threading.RLock())
        self._closing = False
        self._version = 0
        self._running: dict[str, Told] = {}
        self._threads: list[threading.Thread] = []
        self._jobs: dict[str, Job] = {}
        for job in map(Job.of_body, ledger.jobs()):
            self._jobs[job.id] = job if job.ended else job.again()
        self.sweep()

    def start(self, works: Mapping[Kind, Work]) -> None:
        """Begin to work, at what an earlier process left first."""
        for kind, work in works.items():
            thread = threading.Thread(
                target=self._work, args=(kind, work), name=f"{kind}-jobs", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def close(self, grace: float = 10.0) -> None:
        """Stop working; what is not done will be gone on with at the next start.

        Args:
            grace: Seconds that running work has to come to a good place.
        """
        with self._changed:
            self._closing = True
            for told in self._running.values():
                told.stop()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(grace)
        self._tell(None)

    @property
    def closing(self) -> bool:
        """Whether nothing more will happen."""
        return self._closing

    def submit(self, jobs: Collection[Job], files: Collection[Uploaded] = ()) -> list[Job]:
        """Queue jobs with their files; one that waits or runs already is not queued twice.

        Raises:
            OverloadedError: Too much is waiting. Nothing was queued and no file taken.
        """
        with self._changed:
            known = [job for job in self._jobs.values() if not job.ended]
            found, new = [], list[Job]()
            for job in jobs:
                twin = next((one for one in (*known, *new) if one.same_work(job)), None)
                new += [job] if twin is None else []
                found.append(job if twin is None else twin)
            self._require_room(new)
            for file in files:
                self._shelf.put(file)
            self._ledger.write(*(job.to_body() for job in new))
            for job in new:
                self._put(job)
            return [self._jobs[job.id] for job in found]

    def seen_by(self, subject: Subject, *, since: int = -1) -> list[Job]:
        """The jobs that a subject is told of, in their order, changed after a version."""
        with self._changed:
            return [j for j in self._jobs.values() if j.version > since and sees(subject, j)]

    def get(self, subject: Subject, id_: str) -> Job:
        """One job.

        Raises:
            MissingError: There is none, or the subject is not told of it.
        """
        job = self._jobs.get(id_)
        if job is None or not sees(subject, job):
            raise MissingError("there is no such job", hint=LIST)
        return job

    def cancel(self, id_: str) -> Job:
        """Stop a job, at once if it waits and at the next good place if it runs.

        Raises:
            MissingError: There is no such job.
        """
        with self._changed:
            job = self._known(id_)
            if id_ in self._running:
                self._running[id_].given_up = True
                self._running[id_].stop()
            elif job.state == "waiting":
                job = self._write(job.over("cancelled"))
                self._trim()
            return job

    def retry(self, id_: str) -> Job:
        """Queue a job again that failed or was cancelled.

        Raises:
            MissingError: There is no such job.
            UsageError: It did not fail, or its file is gone.
            OverloadedError: Too much is waiting.
        """
        with self._changed:
            job = self._known(id_)
            if job.state not in RETRIED:
                raise UsageError(
                    f"a job that is {job.state} cannot be tried again", hint="wait until it is over"
                )
            if job.kind == "document" and not job.digest:
                raise UsageError("the file is no longer here", hint="upload it again")
            self._require_room([job])
            return self._write(job.again())

    def withdraw(self, jobs: Collection[str]) -> list[str]:
        """Cancel jobs whose documents are deleted, and give up their files.

        One that runs removes again what it may still commit.

        Returns:
            Those that were not over.
        """
        with self._changed:
            found = [self._jobs[id_] for id_ in jobs if id_ in self._jobs]
            for job in found:
                if job.id in self._running:
                    told = self._running[job.id]
                    told.given_up = told.withdrawn = True
                    told.stop()
                else:
                    ended = job if job.ended else job.over("cancelled")
                    self._write(replace(ended, digest=""))
            self.sweep()
            return [job.id for job in found if not job.ended]

    def forget(self, id_: str) -> None:
        """Tell of a job no more that is over."""
        with self._changed:
            if id_ in self._jobs and self._jobs[id_].ended:
                del self._jobs[id_]
                self._ledger.forget(id_)

    def named(self, names: Collection[str]) -> list[Job]:
        """The jobs of documents of these names."""
        with self._changed:
            return [j for j in self._jobs.values() if j.kind == "document" and j.name in names]

    def is_running(self, ids: Collection[str]) -> bool:
        """Whether one of these is being worked at."""
        with self._changed:
            return any(id_ in self._running for id_ in ids)

    def update(self, id_: str, **changes: Any) -> None:
        """Note how far a job is; this is not on disk, as it begins anew after a stop."""
        with self._changed:
            if id_ in self._running:
                self._put(replace(self._jobs[id_], **changes))

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Hear of every change, and of the end by None; what is returned ends that."""
        with self._changed:
            self._listeners.append(listener)

        def end() -> None:
            with self._changed, suppress(ValueError):
                self._listeners.remove(listener)

        return end

    def sweep(self) -> None:
        """Delete the files that neither a job nor a document has use for."""
        with self._changed:
            originals = {digest for digest, _ in self._ledger.originals().values()}
            self._shelf.sweep({job.digest for job in self._jobs.values()} | originals)

    def _work(self, kind: Kind, work: Work) -> None:
        while (taken := self._taken(kind)) is not None:
            job, told = taken
            ended = self._outcome(job, told, work)
            with self._changed:
                del self._running[job.id]
                self._write(ended)
                self._trim()
                self._changed.notify_all()

    def _taken(self, kind: Kind) -> tuple[Job, Told] | None:
        """The next job of a kind, when there is one; None at the end."""
        with self._changed:
            while not self._closing:
                for job in self._jobs.values():
                    if job.kind == kind and job.state == "waiting":
                        told = self._running[job.id] = Told(self, job.id)
                        return self._write(replace(job, state="reading")), told
                self._changed.wait()
        return None

    def _outcome(self, job: Job, told: Told, work: Work) -> Job:
        """The job as it is after its work."""
        try:
            return self._merged(work(job, told)).over("done")
        except CancelledError:
            found = self._jobs[job.id]
            if not told.given_up:
                return found.again()  # the server stops
            return replace(found, digest="" if told.withdrawn else found.digest).over("cancelled")
        except ConsilienceError as error:
            return self._jobs[job.id].over("failed", error)
        except Exception as error:  # noqa: BLE001 - the edge: one mistake must not end all work
            return self._jobs[job.id].over("failed", internal_error(error))

    def _merged(self, job: Job) -> Job:
        """What a work returned, with what was told of it meanwhile; its file has served."""
        return replace(self._jobs[job.id], outcome=job.outcome, digest="")

    def _known(self, id_: str) -> Job:
        if id_ not in self._jobs:
            raise MissingError("there is no such job", hint=LIST)
        return self._jobs[id_]

    def _write(self, job: Job) -> Job:
        self._ledger.write(job.to_body())
        return self._put(job)

    def _put(self, job: Job) -> Job:
        self._version += 1
        job = replace(job, version=self._version)
        self._jobs[job.id] = job
        self._tell(job)
        self._changed.notify_all()
        return job

    def _tell(self, job: Job | None) -> None:
        for listener in list(self._listeners):
            listener(job)

    def _require_room(self, new: Collection[Job]) -> None:
        waiting = [job for job in self._jobs.values() if job.state == "waiting"]
        size = sum(job.total_bytes for job in (*waiting, *new))
        if len(waiting) + len(new) > self._limits.waiting or size > self._limits.waiting_bytes:
            raise OverloadedError(
                f"{len(waiting)} files are waiting already",
                hint="try again when some are done",
                retry_after=30,
            )

    def _trim(self) -> None:
        """Keep no more of what is over than there is room for, the newest."""
        over = [job for job in self._jobs.values() if job.ended]
        self._give_up_files(over)
        old = [job.id for job in over[: max(0, len(over) - self._limits.history)]]
        if old:
            self._ledger.forget(*old)
            for id_ in old:
                del self._jobs[id_]
        self.sweep()

    def _give_up_files(self, over: Collection[Job]) -> None:
        kept = 0
        for job in reversed(list(over)):
            kept += job.total_bytes if job.digest else 0
            if job.digest and kept > self._limits.kept_bytes:
                self._write(replace(job, digest=""))
