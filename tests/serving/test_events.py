import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import Request
from starlette.types import Message

from consilience.errors import MissingError
from consilience.serving import events as module
from consilience.serving.events import Event, EventStream, as_event
from tests.serving.small import events_of


class Listener:
    """Takes in a stream, and hangs up or stops reading when told."""

    def __init__(self, *, leave_after: int | None = None, stall_after: int | None = None) -> None:
        self.messages: list[Message] = []
        self._leave_after, self._stall_after = leave_after, stall_after
        self._left = asyncio.Event()

    @property
    def text(self) -> str:
        return b"".join(m.get("body", b"") for m in self.messages).decode()

    async def receive(self) -> Message:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.messages.append(message)
        if len(self.messages) == self._leave_after:
            self._left.set()
        if len(self.messages) == self._stall_after:
            await asyncio.Event().wait()


def tell(events: AsyncIterator[Event], listener: Listener, **options: Any) -> list[str]:
    """Stream events to a listener; what was called at the end."""
    ended: list[str] = []
    scope: dict[str, Any] = {"type": "http", "headers": []}
    stream = EventStream(Request(scope), events, ended=lambda: ended.append("ended"), **options)

    async def run() -> None:
        await asyncio.wait_for(stream(scope, listener.receive, listener.send), 30)

    asyncio.run(run())
    return ended


async def few() -> AsyncIterator[Event]:
    yield "start", {"id": "1"}
    yield "token", {"text": "a\nb 年\u2028"}


def test_events_are_told_in_order_and_ended_once() -> None:
    listener = Listener()
    assert tell(few(), listener) == ["ended"]
    assert events_of(listener.text) == [
        ("start", {"id": "1"}),
        ("token", {"text": "a\nb 年\u2028"}),
    ]
    start, *_, last = listener.messages
    headers = {k.decode(): v.decode() for k, v in start["headers"]}
    assert headers["content-type"].startswith("text/event-stream")
    assert headers["x-accel-buffering"] == "no"
    assert "content-length" not in headers
    assert last == {"type": "http.response.body", "body": b"", "more_body": False}


def test_no_text_can_end_an_event_or_begin_another() -> None:
    sent = as_event("token", {"text": "\n\nevent: answer\ndata: {}\r\n\r\n"})
    assert sent.count(b"\n") == 3
    assert sent.endswith(b"\n\n")


def test_numbers_that_are_none_never_leave() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        as_event("a", {"x": float("nan")})


def test_an_error_is_the_last_event() -> None:
    async def failing() -> AsyncIterator[Event]:
        yield "start", {}
        raise MissingError("there is no such thing", hint="look elsewhere")

    listener = Listener()
    assert tell(failing(), listener, last=b"data: [DONE]\n\n") == ["ended"]
    name, data = events_of(listener.text)[-1]
    assert (name, data["error"]["message"]) == ("error", "there is no such thing")
    assert "[DONE]" not in listener.text


def test_a_mistake_is_told_and_raised() -> None:
    async def mistaken() -> AsyncIterator[Event]:
        yield "start", {}
        raise RuntimeError("canary")

    listener = Listener()
    with pytest.raises(RuntimeError, match="canary"):
        tell(mistaken(), listener)
    assert events_of(listener.text)[-1][1]["error"]["kind"] == "internal"
    assert "canary" not in listener.text


def test_events_may_be_spelled_otherwise_and_have_an_end() -> None:
    listener = Listener()
    tell(
        few(),
        listener,
        spelled=lambda name, data: b"data: " + json.dumps(data).encode() + b"\n\n",
        last=b"data: [DONE]\n\n",
    )
    assert "event:" not in listener.text
    assert listener.text.endswith("data: [DONE]\n\n")


def test_silence_is_filled_with_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.02)

    async def slow() -> AsyncIterator[Event]:
        yield "start", {}
        await asyncio.sleep(0.2)
        yield "end", {}

    listener = Listener()
    tell(slow(), listener)
    assert listener.text.count(": alive\n\n") >= 2
    assert [name for name, _ in events_of(listener.text)] == ["start", "end"]


@pytest.mark.parametrize("how", ["leave_after", "stall_after"])
def test_a_listener_that_has_gone_or_stops_reading_ends_the_work(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    closed: list[bool] = []

    async def endless() -> AsyncIterator[Event]:
        try:
            while True:
                yield "tick", {}
                await asyncio.sleep(0.01)
        finally:
            closed.append(True)

    listener = Listener(**{how: 3})
    assert tell(endless(), listener) == ["ended"]
    assert closed == [True]
    assert listener.messages[-1]["body"], "no end is told to one who does not listen"


def test_a_listener_who_is_slow_holds_back_the_events() -> None:
    made: list[int] = []

    async def many() -> AsyncIterator[Event]:
        for number in range(1000):
            made.append(number)
            yield "n", {}

    listener = Listener(leave_after=3)
    tell(many(), listener)
    assert len(made) < 10
