"""The compatible way in, asked by OpenAI's own client over a real connection."""

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import uvicorn

from consilience.serving.app import create_app
from consilience.serving.compatible import ChatRequest, searching
from consilience.serving.service import Service
from tests.serving.small import client_of

ASKED = "When are visitors welcome on weekdays?"


@dataclass
class Server:
    """A server on a port of its own."""

    service: Service
    client: openai.OpenAI

    def chat(self, *messages: tuple[str, str], **values: Any) -> Any:
        said = [{"role": role, "content": text} for role, text in messages]
        return self.client.chat.completions.create(model=self.model, messages=said, **values)  # type: ignore[call-overload]

    @property
    def model(self) -> str:
        return self.client.models.list().data[0].id


@pytest.fixture
def server(service: Service) -> Iterator[Server]:
    config = uvicorn.Config(create_app(service, write=lambda _: None), port=0, log_level="critical")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        while not running.started:
            thread.join(0.01)
        port = running.servers[0].sockets[0].getsockname()[1]
        address = f"http://127.0.0.1:{port}/v1"
        with openai.OpenAI(base_url=address, api_key="unused", max_retries=0) as client:
            yield Server(service, client)
    finally:
        running.should_exit = True
        thread.join()


def told(service: Service, **body: Any) -> dict[str, Any]:
    client, _ = client_of(service)
    found: dict[str, Any] = client.post("/v1/ask", json={"question": ASKED, **body}).json()
    return found


def test_a_completion_is_the_answer_with_its_evidence(server: Server) -> None:
    done = server.chat(("user", ASKED), extra_body={"consilience": {"k": 2, "explain": True}})
    asked = told(server.service, k=2, explain=True)
    (choice,) = done.choices
    assert (done.object, done.id[:9], choice.message.role) == (
        "chat.completion",
        "chatcmpl-",
        "assistant",
    )
    assert choice.message.content == (asked["answer"] or "The documents do not say.")
    assert choice.message.citations == asked["citations"]
    assert done.consilience["hits"] == asked["hits"]
    assert done.consilience["tokens"] == asked["tokens"]
    assert done.consilience["abstained"] == asked["abstained"]
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens
    assert done.usage.completion_tokens == len(asked["tokens"])


def test_an_answer_may_be_wanted_word_for_word(server: Server) -> None:
    wanted = {"consilience": {"k": 2, "quote": True}}
    quoted = server.chat(("user", ASKED), extra_body=wanted).choices[0].message.content
    free = server.chat(("user", ASKED), extra_body={"consilience": {"k": 2}})
    asked = told(server.service, k=2, quote=True)
    assert quoted == (asked["answer"] or "The documents do not say.")
    assert quoted != free.choices[0].message.content


def test_a_stream_ends_with_the_same_answer(server: Server) -> None:
    whole = server.chat(("user", ASKED))
    stream = server.chat(("user", ASKED), stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage == whole.usage
    last = chunks[-2]
    assert last.choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.choices[0].delta.citations == whole.choices[0].message.citations
    assert len({c.id for c in chunks}) == 1


def test_messages_before_the_last_are_the_conversation(server: Server) -> None:
    done = server.chat(
        ("system", "You are a pirate."),
        ("user", "Who may visit?"),
        ("assistant", "Everyone."),
        ("user", "And when?"),
    )
    history = [{"question": "Who may visit?", "answer": "Everyone."}]
    asked = told(server.service, question="And when?", history=history)
    assert done.consilience["question"] == asked["question"] == "Who may visit? Everyone. And when?"
    assert done.consilience["ignored"] == ["system"]


def test_text_in_parts_is_read_and_other_parts_are_refused(server: Server) -> None:
    parts: Any = [{"type": "text", "text": "When are visitors"}, {"type": "text", "text": "here?"}]
    assert server.chat(("user", parts)).consilience["question"] == "When are visitors\nhere?"
    image: Any = [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}}]
    with pytest.raises(openai.BadRequestError, match="a part of the type 'image_url'"):
        server.chat(("user", image))


def test_limits_and_samples_reach_the_search(server: Server) -> None:
    one = server.chat(("user", ASKED), max_tokens=1, extra_body={"consilience": {"k": 1}})
    assert one.usage.completion_tokens <= 1
    two = server.chat(("user", ASKED), n=2)
    assert [choice.index for choice in two.choices][:1] == [0]
    drawn = [server.chat(("user", ASKED), temperature=1.5, seed=seed) for seed in (1, 1)]
    assert drawn[0].choices[0].message.content == drawn[1].choices[0].message.content


def request(**values: Any) -> ChatRequest:
    message = {"role": "user", "content": "a"}
    return ChatRequest.model_validate({"model": "m", "messages": [message], **values})


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {}),
        ({"temperature": 0}, {}),
        ({"temperature": 0, "top_p": 0.5}, {}),
        ({"temperature": 0.7}, {"sample": True, "temperature": 0.7}),
        ({"top_p": 0.5}, {"sample": True, "temperature": 1.0, "top_p": 0.5}),
        ({"max_completion_tokens": 7, "max_tokens": 9}, {"max_new_tokens": 7}),
        ({"stop": "."}, {"stop": (".",)}),
        ({"stop": ["a", "b"], "n": 2, "seed": 3}, {"stop": ("a", "b"), "returned": 2, "seed": 3}),
    ],
)
def test_how_a_request_is_searched(values: dict[str, Any], expected: dict[str, Any]) -> None:
    found = searching(request(**values))
    assert {name: value for name, value in found.items() if value is not None} == expected


def test_what_would_change_the_answer_is_refused_by_name(server: Server) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        server.chat(("user", ASKED), frequency_penalty=1, logprobs=True, metadata={"a": "b"})
    assert "not heeded here: frequency_penalty, logprobs" in error.value.message
    neutral = {"frequency_penalty": 0, "tools": [], "user": "me", "logprobs": False}
    assert server.chat(("user", ASKED), **neutral).choices
    with pytest.raises(openai.BadRequestError, match="a stream has one answer, received n=2"):
        server.chat(("user", ASKED), stream=True, n=2)
    with pytest.raises(openai.BadRequestError, match="k is 51, at most 50"):
        server.chat(("user", ASKED), extra_body={"consilience": {"k": 51}})
    with pytest.raises(openai.BadRequestError, match="the last message is of the role 'assistant'"):
        server.chat(("user", ASKED), ("assistant", "Yes."))
    with pytest.raises(openai.UnprocessableEntityError):
        server.chat(("user", ASKED), extra_body={"consilience": {"kk": 5}})
    message: Any = {"role": "user", "content": "a"}
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-4'"):
        server.client.chat.completions.create(model="gpt-4", messages=[message])


def test_the_limits_of_the_server_hold_for_a_chat(service: Service) -> None:
    limits = replace(service.config.limits, longest_question=10, k=3, history=1, max_new_tokens=20)
    service.config = replace(service.config, limits=limits)
    client, _ = client_of(service)

    def asked(turns: int, characters: int, k: int, most: int) -> tuple[int, str]:
        before = [("user", "a"), ("assistant", "b")] * turns
        said = [*before, ("user", "x" * characters)]
        body = {
            "model": Path(str(service.config.model)).name,
            "messages": [{"role": role, "content": text} for role, text in said],
            "max_tokens": most,
            "consilience": {"k": k},
        }
        found = client.post("/v1/chat/completions", json=body)
        return found.status_code, found.json().get("error", {}).get("message", "")

    assert asked(1, 10, 3, 20) == (200, "")
    assert asked(2, 11, 4, 21) == (
        400,
        "question has 11 characters, at most 10; history has 2 turns, at most 1; "
        "k is 4, at most 3; max_new_tokens is 21, at most 20",
    )


def test_models(server: Server) -> None:
    (only,) = server.client.models.list().data
    assert only.id == server.service.config.model.rsplit("/", 1)[-1]  # type: ignore[union-attr]
    assert server.client.models.retrieve(only.id) == only
    with pytest.raises(openai.NotFoundError):
        server.client.models.retrieve("gpt-4")


def test_embeddings_are_the_encoders_vectors(server: Server) -> None:
    encoder = server.service.rag.encoder
    assert encoder is not None
    texts = ["the ward", "银行"]
    for kind, expected in (
        ("passage", encoder.encode_passages(texts)),
        ("question", encoder.encode_questions(texts)),
    ):
        done = server.client.embeddings.create(
            model=server.model, input=texts, extra_body={"consilience": {"kind": kind}}
        )
        found = np.array([one.embedding for one in done.data], np.float32)
        assert np.allclose(found, expected, atol=1e-6)
        assert [one.index for one in done.data] == [0, 1]
        assert done.usage.prompt_tokens == done.usage.total_tokens > 0


def test_wrong_embedding_requests(server: Server) -> None:
    with pytest.raises(openai.BadRequestError, match="vectors have 16 dimensions, received 8"):
        server.client.embeddings.create(model=server.model, input="a", dimensions=8)
    for wrong in ("", [], ["a"] * 257, ["a", ""], [[1, 2]]):
        with pytest.raises(openai.UnprocessableEntityError):
            server.client.embeddings.create(model=server.model, input=wrong)  # type: ignore[arg-type]


def test_base64_and_floats_are_the_same_vector(service: Service) -> None:
    client, _ = client_of(service)
    name = client.get("/v1/models").json()["data"][0]["id"]
    body = {"model": name, "input": "the ward"}
    floats = client.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
    text = client.post("/v1/embeddings", json={**body, "encoding_format": "base64"}).json()
    decoded = np.frombuffer(base64.b64decode(text["data"][0]["embedding"]), "<f4")
    assert np.allclose(floats, decoded)


def test_the_end_of_a_stream_is_told_as_clients_expect(service: Service) -> None:
    client, _ = client_of(service)
    name = client.get("/v1/models").json()["data"][0]["id"]
    body = {"model": name, "messages": [{"role": "user", "content": ASKED}], "stream": True}
    text = client.post("/v1/chat/completions", json=body).text
    blocks = [block for block in text.split("\n\n") if block]
    assert blocks[-1] == "data: [DONE]"
    assert all(block.startswith("data: ") for block in blocks)
    assert [json.loads(block[6:])["object"] for block in blocks[:-1]] == [
        "chat.completion.chunk"
    ] * (len(blocks) - 1)
