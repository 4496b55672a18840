"""Ranking passages, without an answer."""

import json

from fastapi import APIRouter, Response

from consilience.serving.access import Reader, Subject
from consilience.serving.answers import hit_document
from consilience.serving.requests import SearchRequest, check_search
from consilience.serving.service import Service, ServiceOf

router = APIRouter(tags=["search"])


@router.post("/v1/search")
async def search(body: SearchRequest, subject: Reader, service: ServiceOf) -> Response:
    """Rank the passages that the key may read, the best first."""
    check_search(body, service.config.limits)
    text = await service.work(_found, service, subject, body)
    return Response(text, media_type="application/json")


def _found(service: Service, subject: Subject, body: SearchRequest) -> str:
    """The answer as it is sent; made here, so that the event loop does not wait for it."""
    hits = service.search(subject, body.question, k=body.k, mode=body.mode, conditions=body.where)
    return json.dumps({"hits": [hit_document(hit) for hit in hits]})
