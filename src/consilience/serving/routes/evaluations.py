"""Evaluations: questions with known answers put to the model that is served."""

import base64
import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from consilience.evaluation.report.style import SCRIPT
from consilience.serving.access import Reader, Writer
from consilience.serving.evaluations import LONGEST_LINK, LONGEST_QUESTIONS, plan_of
from consilience.serving.service import ServiceOf
from consilience.serving.uploads import UploadLimits, form_schema, received
from consilience.serving.words import language_of_header

router = APIRouter(tags=["evaluations"])

_DIGEST = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
_HEADERS = {
    "Content-Security-Policy": (
        "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{_DIGEST}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'self'"
    ),
    "X-Frame-Options": "SAMEORIGIN",
    "Cache-Control": "no-store",
}
"""A report is a page of its own: no part of ours, and with no script but the one it came with."""

_PAGE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/html": {}}, "description": "The report."}
}
Id = Annotated[str, Path(max_length=100)]


@router.get("/v1/evaluations")
async def evaluations(subject: Reader, service: ServiceOf) -> dict[str, Any]:
    """List the key's own evaluations, for an admin all, the newest first."""
    found = await service.work(service.jobs.evaluations.listed, subject, service.jobs.backlog)
    return {"evaluations": found}


@router.post(
    "/v1/evaluations",
    status_code=202,
    openapi_extra=form_schema(
        "data", {"name": "string", "k": "integer", "mode": "string", "limit": "integer"}
    ),
)
async def evaluate(request: Request, subject: Writer, service: ServiceOf) -> dict[str, Any]:
    """Ask the questions of a file; a job tells how far that is."""
    kept, limits = service.jobs.evaluations, service.config.limits
    language = language_of_header(request.headers.get("accept-language", ""))
    most = UploadLimits(files=1, file_bytes=min(limits.longest_upload, LONGEST_QUESTIONS))
    async with received(request, kept.incoming(), field_name="data", limits=most) as form:
        plan = plan_of(form, limits, language)
        job = await service.work(kept.prepare, subject, form.files[0], plan)
    return (await service.work(kept.submit, subject, job, service.jobs.backlog)).to_dict()


@router.delete("/v1/evaluations/{id}", status_code=204, response_class=Response)
async def delete(id: Id, subject: Writer, service: ServiceOf) -> Response:  # noqa: A002
    """Delete an evaluation with its report; a job that is still at it is cancelled."""
    await service.work(service.jobs.evaluations.remove, subject, id, service.jobs.backlog)
    return Response(status_code=204)


@router.get("/v1/evaluations/{id}/report", response_class=Response, responses=_PAGE)
async def report(id: Id, subject: Reader, service: ServiceOf) -> Response:  # noqa: A002
    """The report, as a page."""
    page = await service.work(service.jobs.evaluations.report, subject, id)
    return Response(page, media_type="text/html; charset=utf-8", headers=_HEADERS)


@router.post("/v1/evaluations/{id}/link", status_code=201)
async def link(id: Id, subject: Reader, service: ServiceOf) -> dict[str, Any]:  # noqa: A002
    """An address at which a browser can open the report for a minute, as it sends no key."""
    found = await service.work(service.jobs.evaluations.link, subject, id)
    return {"url": f"/v1/reports/{found.name}", "seconds": found.seconds}


@router.get("/v1/reports/{link}", response_class=Response, responses=_PAGE)
async def linked(
    link: Annotated[str, Path(max_length=LONGEST_LINK)], service: ServiceOf
) -> Response:
    """The report behind such an address."""
    page = await service.work(service.jobs.evaluations.linked, link)
    return Response(page, media_type="text/html; charset=utf-8", headers=_HEADERS)
