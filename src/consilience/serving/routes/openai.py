"""The compatible way in: chat completions, embeddings and models, as clients of OpenAI's API ask.

What a chat is told comes from the same desk as every other answer. Vectors are made of the text in
the request alone; none out of the store is ever told.
"""

import base64
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field

from consilience.errors import MissingError, UsageError
from consilience.serving.access import Reader, Subject
from consilience.serving.answers import ask_options, hit_document
from consilience.serving.compatible import (
    ChatRequest,
    Frame,
    Loose,
    Talk,
    beside_answer,
    check_parameters,
    finish_of,
    message_of,
    searching,
    spoken,
    talk_of,
)
from consilience.serving.events import Event, EventStream
from consilience.serving.requests import AskRequest, Strict, check_ask
from consilience.serving.routes.ask import unless_gone
from consilience.serving.service import Service, ServiceOf

if TYPE_CHECKING:
    from consilience.model import Answer, AskOptions
    from consilience.serving.desk import Ticket

router = APIRouter(tags=["compatible"])

SHIPPED = "consilience"
"""The name of the model that ships."""

MOST_TEXTS = 256
"""Texts that are embedded in one request."""


class Embedded(Strict):
    """Whether texts are questions or passages, which an encoder may tell apart."""

    kind: Literal["question", "passage"] = "passage"


LongText = Annotated[str, Field(min_length=1, max_length=20_000)]


class EmbeddingRequest(Loose):
    """What a client of OpenAI's embeddings API sends."""

    model: Annotated[str, Field(max_length=500)]
    input: LongText | Annotated[list[LongText], Field(min_length=1, max_length=MOST_TEXTS)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    consilience: Embedded = Field(default_factory=Embedded)


def model_name(service: Service) -> str:
    """How the model is called over HTTP; of a folder its name only."""
    return SHIPPED if service.config.model is None else Path(service.config.model).name


@router.get("/v1/models")
async def models(_: Reader, service: ServiceOf) -> dict[str, Any]:
    """The one model of this server."""
    return {"object": "list", "data": [_model(model_name(service))]}


@router.get("/v1/models/{name}")
async def model(name: str, _: Reader, service: ServiceOf) -> dict[str, Any]:
    """The model, by its name."""
    _require_model(service, name)
    return _model(name)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "consilience"}


def _require_model(service: Service, name: str) -> None:
    if name != model_name(service):
        raise MissingError(f"there is no model {name[:200]!r}", hint="GET /v1/models names it")


@router.post("/v1/chat/completions")
async def chat(
    body: ChatRequest, request: Request, subject: Reader, service: ServiceOf
) -> Response:
    """Answer the last message from the documents that the key may read."""
    _require_model(service, body.model)
    check_parameters(body)
    talk = talk_of(body.messages)
    options = await service.work(_options, service, subject, body, talk)
    ticket = service.desk.submit(talk.question, options)
    service.asks.begin(ticket, subject)
    told = _Told(service, body, talk, ticket, options.max_new_tokens)
    if body.stream:
        return EventStream(
            request,
            told.chunks(),
            ended=lambda: service.asks.end(ticket),
            spelled=_as_data,
            last=b"data: [DONE]\n\n",
        )
    try:
        found = await unless_gone(request, told.whole())
    finally:
        service.asks.end(ticket)
    return Response(json.dumps(found), media_type="application/json")


def _options(service: Service, subject: Subject, body: ChatRequest, talk: Talk) -> "AskOptions":
    from consilience.model import Turn

    how, asked = searching(body), body.consilience
    most = how["max_new_tokens"] or AskRequest.model_fields["max_new_tokens"].default
    bounded = AskRequest.model_construct(
        question=talk.question, history=list(talk.turns), k=asked.k, max_new_tokens=most
    )
    check_ask(bounded, service.config.limits)
    return ask_options(
        subject,
        where=service.where(subject, asked.where),
        k=asked.k,
        mode=asked.mode,
        fusion=asked.fusion,
        quote=asked.quote,
        history=tuple(Turn(*turn) for turn in talk.turns),
        **how,
    )


def _as_data(_: str, data: dict[str, Any]) -> bytes:
    """An event as clients of this API read them: without a name, errors too."""
    return f"data: {json.dumps(data, allow_nan=False)}\n\n".encode()


class _Told:
    """One completion, whole or in pieces."""

    def __init__(
        self, service: Service, body: ChatRequest, talk: Talk, ticket: "Ticket", most: int
    ) -> None:
        self.service, self.body, self.talk, self.ticket = service, body, talk, ticket
        self.frame = Frame(ticket.id, int(time.time()), model_name(service))
        self.most = most
        self.hits: list[dict[str, Any]] = []

    async def whole(self) -> dict[str, Any]:
        """The completion as one document."""
        async for _, answer in self._pieces():
            if answer is not None:
                return self.frame.completion(
                    answer, beside=self._beside(answer), usage=self._usage(answer), most=self.most
                )
        raise AssertionError("a ticket ends with an answer or an error")

    async def chunks(self) -> AsyncIterator[Event]:
        """The completion as it is written, as events without names."""
        async for chunk in self._chunks():
            yield "", chunk

    async def _chunks(self) -> AsyncIterator[dict[str, Any]]:
        yield self.frame.chunk({"role": "assistant", "content": ""})
        shown = ""
        async for text, answer in self._pieces():
            text = text if answer is None else spoken(answer)
            if text.startswith(shown) and text != shown:
                yield self.frame.chunk({"content": text[len(shown) :]})
                shown = text
            if answer is not None:
                yield self._last(answer)
                if self.body.stream_options and self.body.stream_options.include_usage:
                    yield self.frame.usage_chunk(self._usage(answer))

    def _last(self, answer: "Answer") -> dict[str, Any]:
        delta = {"citations": message_of("", answer)["citations"]}
        beside = {"consilience": self._beside(answer)}
        return self.frame.chunk(delta, finish_of(answer, self.most)) | beside

    async def _pieces(self) -> "AsyncIterator[tuple[str, Answer | None]]":
        from consilience.serving.desk import Retrieved

        async for piece in self.ticket.apieces():
            if isinstance(piece, Retrieved):
                self.hits = [hit_document(hit) for hit in piece.hits]
            else:
                yield piece.text, piece.answer

    def _beside(self, answer: "Answer") -> dict[str, Any]:
        explain = self.body.consilience.explain
        return beside_answer(answer, ignored=self.talk.ignored, hits=self.hits, explain=explain)

    def _usage(self, answer: "Answer") -> dict[str, int]:
        """Sub-words of the question as it was looked up, and of the answer."""
        read, written = _count(self.service, answer.question), len(answer.tokens)
        return {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
        }


def _count(service: Service, text: str) -> int:
    """Sub-words of a text; of a model behind an endpoint, its words."""
    from consilience.model import RagModel

    model = service.rag.parts.model
    if isinstance(model, RagModel):
        return len(model.generator.answer_ids(text)) - 1
    return len(text.split())


@router.post("/v1/embeddings")
async def embeddings(body: EmbeddingRequest, _: Reader, service: ServiceOf) -> Response:
    """Vectors of texts, of length one."""
    _require_model(service, body.model)
    text = await service.work(_embedded, service, body)
    return Response(text, media_type="application/json")


def _embedded(service: Service, body: EmbeddingRequest) -> str:
    encoder = service.rag.encoder
    if encoder is None:
        raise UsageError("this model has no encoder", hint="serve a model that has one")
    if body.dimensions not in (None, encoder.dimension):
        raise UsageError(
            f"vectors have {encoder.dimension} dimensions, received {body.dimensions}",
            hint="leave dimensions out",
        )
    texts = [body.input] if isinstance(body.input, str) else body.input
    passages = body.consilience.kind == "passage"
    vectors = encoder.encode_passages(texts) if passages else encoder.encode_questions(texts)
    as_text = body.encoding_format == "base64"
    data = [
        {
            "object": "embedding",
            "index": place,
            "embedding": base64.b64encode(vector.tobytes()).decode()
            if as_text
            else vector.tolist(),
        }
        for place, vector in enumerate(vectors.astype("<f4"))
    ]
    read = sum(_count(service, text) for text in texts)
    usage = {"prompt_tokens": read, "total_tokens": read}
    whole = {"object": "list", "data": data, "model": body.model, "usage": usage}
    return json.dumps(whole)
