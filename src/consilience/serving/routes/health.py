"""Whether the server answers, and its numbers."""

from typing import Any

from fastapi import APIRouter, Request, Response

from consilience.serving.access import Admin, authorise, subject_of
from consilience.serving.service import Service, ServiceOf
from consilience.version import __version__

router = APIRouter(tags=["health"])

NUMBERS = "text/plain; version=0.0.4; charset=utf-8"


@router.get("/v1/health")
async def health(request: Request, service: ServiceOf) -> dict[str, Any]:
    """Say whether the server answers; counts are for those who may read everything."""
    subject = subject_of(request)
    counted = subject is not None and subject.reads_everything and authorise(subject, "read")
    found = {"status": service.state, "version": __version__, "model": service.model_name}
    return found | (await service.work(_counts, service) if counted else _UNKNOWN)


_UNKNOWN = {"documents": None, "passages": None, "generation": None}


def _counts(service: Service) -> dict[str, int]:
    stats = service.store.stats()
    return {
        "documents": stats.documents,
        "passages": stats.passages,
        "generation": stats.sequence,
    }


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(_: Admin, service: ServiceOf) -> Response:
    """All numbers, for Prometheus."""
    return Response(await service.work(service.metrics.text), media_type=NUMBERS)
