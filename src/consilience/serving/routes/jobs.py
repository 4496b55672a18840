"""Jobs: what the server does in the background, told as it happens."""

from typing import Any

from fastapi import APIRouter, Request

from consilience.serving.access import Reader, Writer
from consilience.serving.events import EventStream
from consilience.serving.following import job_events
from consilience.serving.service import ServiceOf

router = APIRouter(tags=["jobs"])


@router.get("/v1/jobs")
async def jobs(subject: Reader, service: ServiceOf) -> dict[str, Any]:
    """List the key's own jobs, for an admin all, the oldest first."""
    found = await service.work(service.jobs.backlog.seen_by, subject)
    return {"jobs": [job.to_dict() for job in found]}


@router.get(
    "/v1/jobs/events",
    response_class=EventStream,
    responses={200: {"content": {"text/event-stream": {}}, "description": "Events `job`."}},
)
async def events(request: Request, subject: Reader, service: ServiceOf) -> EventStream:
    """Watch jobs: first each as it is, then each that changes, as events `job`."""
    return EventStream(request, job_events(service, subject))


@router.get("/v1/jobs/{id}")
async def job(id: str, subject: Reader, service: ServiceOf) -> dict[str, Any]:  # noqa: A002
    """How far a job is."""
    found = await service.work(service.jobs.backlog.get, subject, id)
    return found.to_dict()


@router.post("/v1/jobs/{id}/cancel")
async def cancel(id: str, subject: Writer, service: ServiceOf) -> dict[str, Any]:  # noqa: A002
    """Stop a job; one that runs stops at the next good place, and nothing half done is left."""
    backlog = service.jobs.backlog
    known = await service.work(backlog.get, subject, id)
    return (await service.work(backlog.cancel, known.id)).to_dict()


@router.post("/v1/jobs/{id}/retry")
async def retry(id: str, subject: Writer, service: ServiceOf) -> dict[str, Any]:  # noqa: A002
    """Try a job again that failed or was cancelled."""
    backlog = service.jobs.backlog
    known = await service.work(backlog.get, subject, id)
    return (await service.work(backlog.retry, known.id)).to_dict()
