"""Documents: what there is, bringing some in, taking some out, and reading one."""

import asyncio
import time
from collections.abc import Collection
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from consilience.documents.pages import WIDTHS
from consilience.serving.access import Reader, Writer, missing_document
from consilience.serving.library import Listed, listed, page_text, text_of, upload_jobs
from consilience.serving.service import Service, ServiceOf
from consilience.serving.uploads import UploadLimits, form_schema, received

router = APIRouter(tags=["documents"])

STOPPING_SECONDS = 5.0
"""How long a deletion waits for a running job to stop; what that still commits is removed too."""

Source = Annotated[str, Query(min_length=1, max_length=1000)]
PageNumber = Annotated[int, Query(ge=1, le=1_000_000)]
Offset = Annotated[int, Query(ge=0, le=1_000_000_000)]


@router.get("/v1/documents")
async def documents(
    subject: Reader,
    service: ServiceOf,
    offset: Offset = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    query: Annotated[str, Query(max_length=200)] = "",
) -> dict[str, Any]:
    """List the documents that the key may read, by name."""
    which = Listed(offset=offset, limit=limit, query=query)
    return await service.work(listed, service, subject, which)


@router.post(
    "/v1/documents",
    status_code=202,
    openapi_extra=form_schema("files", {"access": "array", "contributor": "string"}),
)
async def upload(request: Request, subject: Writer, service: ServiceOf) -> dict[str, Any]:
    """Bring in files; each is a job that reads and embeds it."""
    limits = service.config.limits
    most = UploadLimits(files=limits.upload_files, file_bytes=limits.longest_upload)
    folder = service.jobs.shelf.folder
    async with received(request, folder, field_name="files", limits=most) as form:
        jobs = upload_jobs(subject, form)
        queued = await service.work(service.jobs.backlog.submit, jobs, form.files)
    return {"jobs": [job.to_dict() for job in queued]}


@router.delete("/v1/documents")
async def delete(source: Source, subject: Writer, service: ServiceOf) -> dict[str, Any]:
    """Delete a document with its passages, its original and its jobs; a `/` ends a folder."""
    intake = service.jobs.intake
    cancelled = await service.work(intake.withdraw, subject, source)
    await _stopped(service, cancelled)
    removed = await service.work(intake.remove, subject, source, cancelled)
    service.jobs.pictures.forget(await service.work(intake.digests))
    return removed.to_dict()


@router.get("/v1/documents/text")
async def text(
    source: Source,
    subject: Reader,
    service: ServiceOf,
    start: Offset = 0,
    end: Annotated[int | None, Query(ge=0, le=1_000_000_000)] = None,
) -> dict[str, Any]:
    """Read a stretch of a document's text, counted in characters."""
    return await service.work(text_of, service, subject, source, start=start, end=end)


@router.get(
    "/v1/documents/page",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}, "description": "The page."}},
)
async def page(
    source: Source,
    page: PageNumber,
    subject: Reader,
    service: ServiceOf,
    width: Annotated[int, Query(ge=WIDTHS[0], le=WIDTHS[-1])] = 900,
) -> Response:
    """Draw a page of an uploaded PDF."""
    document = await service.work(service.document, subject, source)
    kept = await service.work(service.jobs.intake.original, document.source)
    if kept is None:
        raise missing_document(source)
    picture = await service.jobs.pictures.picture(*kept, page, width)
    return Response(picture, media_type="image/png")


@router.get("/v1/documents/page/boxes")
async def boxes(
    source: Source,
    page: PageNumber,
    subject: Reader,
    service: ServiceOf,
    start: Offset,
    end: Offset,
) -> dict[str, Any]:
    """Where some characters of a document stand on a page of an uploaded PDF.

    A box is left, top, right and bottom in fractions of the page. `complete` says whether the boxes
    hold all of the characters that stand on this page: none is guessed.
    """
    document = await service.work(service.document, subject, source)
    kept = await service.work(service.jobs.intake.original, document.source)
    if kept is None:
        raise missing_document(source)
    found = page_text(document, page)
    seen = await service.jobs.pictures.boxes(
        kept[1], page, text=found.text, start=start - found.start, end=end - found.start
    )
    return {"boxes": [list(box) for box in seen.boxes], "complete": seen.complete}


async def _stopped(service: Service, jobs: Collection[str]) -> None:
    until = time.monotonic() + STOPPING_SECONDS
    while service.jobs.backlog.is_running(jobs) and time.monotonic() < until:
        await asyncio.sleep(0.05)
