"""Training runs: which there are, their curves, and watching them."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Security

from consilience.serving.access import reader
from consilience.serving.events import EventStream
from consilience.serving.following import run_events
from consilience.serving.runs import all_runs, points_of, run_info
from consilience.serving.service import ServiceOf

router = APIRouter(tags=["runs"], dependencies=[Security(reader)])


@router.get("/v1/runs")
async def runs(service: ServiceOf) -> dict[str, Any]:
    """List the training runs, the newest first."""
    found = await service.work(all_runs, service.config.runs)
    return {"runs": [run.to_dict() for run in found]}


@router.get("/v1/runs/{name}")
async def run(name: str, service: ServiceOf) -> dict[str, Any]:
    """The curve of a training run."""
    info = await service.work(run_info, service.config.runs, name)
    return info.to_dict() | {"points": await service.work(points_of, service.config.runs, name)}


@router.get(
    "/v1/runs/{name}/events",
    response_class=EventStream,
    responses={
        200: {
            "content": {"text/event-stream": {}},
            "description": "Events `points`, `run`, and `anew` when all points told are void.",
        }
    },
)
async def events(
    request: Request,
    name: str,
    service: ServiceOf,
    after: Annotated[int, Query(ge=-1, le=1_000_000_000)] = -1,
) -> EventStream:
    """Watch a training run from a step on."""
    await service.work(run_info, service.config.runs, name)
    return EventStream(request, run_events(service, name, after=after))
