"""Reading a passage with the text around it."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from consilience.serving.access import Reader
from consilience.serving.passages import MOST_CONTEXT, with_context
from consilience.serving.service import ServiceOf

router = APIRouter(tags=["passages"])


@router.get("/v1/passages/{id}")
async def passage(
    id: str,  # noqa: A002 the field's name in every contract
    subject: Reader,
    service: ServiceOf,
    context: Annotated[int, Query(ge=0, le=MOST_CONTEXT)] = 400,
) -> dict[str, Any]:
    """Read a passage, with the text before and after it in its document."""
    return await service.work(with_context, service, subject, id, context=context)
