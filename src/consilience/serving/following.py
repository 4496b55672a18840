"""What happens, as events: jobs as they change, and runs as they grow.

A stream ends after a quarter of an hour, so that a key that was revoked meanwhile is asked for
again, and when the server is about to stop; whoever watches comes back. However fast things change,
a listener is told at most a few times a second.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from consilience.serving.events import Event
from consilience.serving.job import Job
from consilience.serving.runs import log_of, run_info
from consilience.serving.subjects import Subject

if TYPE_CHECKING:
    from consilience.serving.service import Service

LONGEST = 900.0
"""Seconds that a stream lasts."""

SHORTEST_PAUSE = 0.2
"""Seconds between two looks at the jobs."""

LOOK_EVERY = 1.0
"""Seconds between two looks at a log, or at whether the server stops."""

POINTS = 500
"""Points in one event."""


async def job_events(service: "Service", subject: Subject) -> AsyncIterator[Event]:
    """Every job that a subject is told of, and every one that changes from then on."""
    backlog, version = service.jobs.backlog, -1
    with _alarm(service) as changed:
        for _ in _while_open(service):
            changed.clear()
            for job in await service.work(backlog.seen_by, subject, since=version):
                version = max(version, job.version)
                yield "job", job.to_dict()
            await asyncio.sleep(SHORTEST_PAUSE)
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), LOOK_EVERY)


async def run_events(service: "Service", name: str, *, after: int) -> AsyncIterator[Event]:
    """The points of a run after a step, as they are logged, and its state when that changes.

    Raises:
        MissingError: There is no such run.
    """
    folder, told = service.config.runs, None
    log = await service.work(log_of, folder, name, after=after)
    for _ in _while_open(service):
        news = await service.work(log.news)
        if news.anew:
            yield "anew", {}
        for start in range(0, len(news.points), POINTS):
            yield "points", {"points": list(news.points[start : start + POINTS])}
        info = await service.work(run_info, folder, name)
        if info != told:
            told = info
            yield "run", info.to_dict()
        await asyncio.sleep(LOOK_EVERY)


def _while_open(service: "Service") -> Iterator[None]:
    until = time.monotonic() + LONGEST
    while time.monotonic() < until and not service.gates.closing:
        yield


@contextmanager
def _alarm(service: "Service") -> Iterator[asyncio.Event]:
    """An event that is set when a job changes."""
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    def heard(_: Job | None) -> None:
        with suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(changed.set)

    end = service.jobs.backlog.listen(heard)
    try:
        yield changed
    finally:
        end()
