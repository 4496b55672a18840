"""Asking: an answer as one JSON document, or told as it is written; and stopping it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import APIRouter, Request, Response

from consilience.serving.access import Reader, Subject
from consilience.serving.answers import answer_document, ask_options, hit_document
from consilience.serving.errors import StoppedError
from consilience.serving.events import Event, EventStream
from consilience.serving.requests import AskRequest, check_ask
from consilience.serving.service import Service, ServiceOf

if TYPE_CHECKING:
    from consilience.model import AskOptions
    from consilience.serving.desk import Ticket

router = APIRouter(tags=["ask"])

T = TypeVar("T")


@router.post("/v1/ask", responses={200: {"content": {"text/event-stream": {}}}})
async def ask(body: AskRequest, request: Request, subject: Reader, service: ServiceOf) -> Response:
    """Answer a question, with the passages that the answer rests on.

    With `stream` the answer is told as it is written, as server-sent events: `start`, `retrieved`,
    `token`, `answer` or `error`. Closing the connection stops the work.
    """
    check_ask(body, service.config.limits)
    options = await service.work(_options, service, subject, body)
    ticket = service.desk.submit(body.question, options)
    service.asks.begin(ticket, subject)
    events = _events(ticket, explain=body.explain)
    if body.stream:
        return EventStream(request, events, ended=lambda: service.asks.end(ticket))
    try:
        found = await unless_gone(request, _last(events))
    finally:
        service.asks.end(ticket)
    return Response(json.dumps(found), media_type="application/json")


@router.delete("/v1/ask/{id}")
async def stop(
    id: str,  # noqa: A002 the field's name in every contract
    subject: Reader,
    service: ServiceOf,
) -> dict[str, Any]:
    """Stop a question in work that the same key asked; an admin may stop any."""
    service.asks.stop(id, subject)
    return {"id": id, "stopped": True}


def _options(service: Service, subject: Subject, body: AskRequest) -> "AskOptions":
    from consilience.model import Turn

    return ask_options(
        subject,
        where=service.where(subject, body.where),
        k=body.k,
        mode=body.mode,
        fusion=body.fusion,
        beams=body.beams,
        max_new_tokens=body.max_new_tokens,
        quote=body.quote,
        abstain=body.abstain,
        history=tuple(Turn(turn.question, turn.answer) for turn in body.history),
    )


async def _events(ticket: "Ticket", *, explain: bool) -> AsyncIterator[Event]:
    """What happens to a question, in the words of the API."""
    from consilience.serving.desk import Retrieved

    hits: Any = ()
    yield "start", {"id": ticket.id}
    async for piece in ticket.apieces():
        if isinstance(piece, Retrieved):
            hits = piece.hits
            found = [hit_document(hit) for hit in hits]
            yield "retrieved", {"question": piece.question, "hits": found}
        elif piece.answer is not None:
            yield "answer", answer_document(piece.answer, hits, id_=ticket.id, explain=explain)
        else:
            yield "token", {"text": piece.text, "posterior": dict(piece.posterior)}


async def _last(events: AsyncIterator[Event]) -> dict[str, Any]:
    """The data of the last event, which is the answer."""
    return [data async for _, data in events][-1]


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The outcome of some work, which ends when whoever waits for it has gone.

    Raises:
        StoppedError: Nobody waits any more.
    """
    doing, leaving = asyncio.ensure_future(work), asyncio.create_task(_gone(request))
    try:
        await asyncio.wait((doing, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        left = not doing.done() and doing.cancel()
    if left:
        raise _stopped()
    return await doing


def _stopped() -> StoppedError:
    return StoppedError("the question was stopped before it was answered", hint="ask it again")


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
