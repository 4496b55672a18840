"""A service on this machine that behaves as a test tells it to, well or badly."""

import json
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Asked:
    """One request."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class Handler(BaseHTTPRequestHandler):
    """Hands every request to the service's behaviour."""

    service: "Service"

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = json.loads(self.rfile.read(length))
        self.service.asked.append(Asked(self.path, dict(self.headers), body))
        self.close_connection = True
        self.service.behave(self, body)

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def answer(
        self, content: object, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        """A whole answer; bytes are sent as they are, anything else as JSON."""
        sent = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def drip(self, pieces: Iterator[bytes]) -> None:
        """One piece at a time, until the test is over."""
        for piece in pieces:
            if self.service.over.wait(0.02):
                return
            self.wfile.write(piece)
            self.wfile.flush()


Behaviour = Callable[[Handler, dict[str, Any]], None]


@dataclass
class Service:
    """What runs and what it was asked."""

    behave: Behaviour
    address: str = ""
    asked: list[Asked] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is what some tests want."""


@contextmanager
def serving(behave: Behaviour) -> Iterator[Service]:
    """A service for the length of a block."""
    service = Service(behave)
    handler = type("Bound", (Handler,), {"service": service})
    server = _Server(("127.0.0.1", 0), handler)
    service.address = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """One behaviour a request; the last one stays."""
    rest = list(behaviours)

    def behave(handler: Handler, body: dict[str, Any]) -> None:
        (rest.pop(0) if len(rest) > 1 else rest[0])(handler, body)

    return behave


def says(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Behaviour:
    """The same answer always."""
    return lambda handler, _: handler.answer(content, status, headers)


def text(*texts: str) -> dict[str, Any]:
    """The body of a completion."""
    return {"choices": [{"text": one} for one in texts]}


def characters(told: str) -> tuple[list[str], list[float | None]]:
    """A language model of one character a token: each depends on the two before it."""
    log_probs = [
        -0.1 - (ord(told[i]) * 7 + ord(told[i - 1]) * 3 + ord(told[max(0, i - 2)])) % 23 / 10
        for i in range(1, len(told))
    ]
    return list(told), [None, *log_probs][: len(told)]


def log_prob(prompt: str, answer: str) -> float:
    """Log p of an answer after a prompt under `characters`."""
    _, log_probs = characters(prompt + answer)
    return math.fsum(one for one in log_probs[len(prompt) :] if one is not None)


def language_model(write: Callable[[str], str]) -> Behaviour:
    """A service that continues prompts with `write` and scores what it is given."""

    def behave(handler: Handler, body: dict[str, Any]) -> None:
        told = body["prompt"] if body.get("echo") else write(body["prompt"])
        tokens, log_probs = characters(told)
        logprobs = {"tokens": tokens, "token_logprobs": log_probs}
        handler.answer({"choices": [{"text": told, "logprobs": logprobs}] * body.get("n", 1)})

    return behave
