"""The server as a process: ready, reachable, stopped gracefully and at once."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn

from consilience.errors import UsageError
from consilience.serving.app import create_app
from consilience.serving.config import ServeConfig
from consilience.serving.door import SHORT
from consilience.serving.journal import LOG
from consilience.serving.running import Server, address_of, listen
from consilience.serving.service import Service
from tests.cli.terminal import PROGRAM
from tests.serving.small import events_of

SECONDS = 60.0


class Running:
    """A server in a process of its own.

    Args:
        process: `consilience serve … --json`.
    """

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        assert process.stdout is not None
        self.ready: dict[str, Any] = json.loads(process.stdout.readline())
        self.client = httpx2.Client(base_url=self.ready["address"], timeout=SECONDS)

    def end(self) -> tuple[int, str, str]:
        """The exit code, the rest of standard output, and the log."""
        out, err = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, out, err


@contextmanager
def running(folder: Path, model: Path, *flags: str) -> Iterator[Running]:
    words = ["serve", "--store", str(folder / "knowledge"), "--model", str(model), "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words, "--json", *flags],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    try:
        yield Running(process)
    finally:
        process.kill()
        process.communicate()


def test_it_says_where_it_is_and_answers_there(served: Path, tiny_model_folder: Path) -> None:
    with running(served, tiny_model_folder) as server:
        assert server.ready.keys() == {"address", "store", "model"}
        assert server.ready["address"].startswith("http://127.0.0.1:")
        assert server.ready["model"] == tiny_model_folder.name
        assert server.client.get("/v1/health").json()["documents"] == 3
        found = server.client.post("/v1/search", json={"question": "visitors canary"})
        assert [hit["source"] for hit in found.json()["hits"]]
        asked = {"question": "visitors canary", "stream": True}
        events = events_of(server.client.post("/v1/ask", json=asked).text)
        assert [events[0][0], events[-1][0]] == ["start", "answer"]
        server.process.send_signal(signal.SIGTERM)
        code, out, err = server.end()
    assert (code, out) == (0, "")
    lines = [json.loads(line) for line in err.splitlines()]
    assert sorted(line["event"] for line in lines) == ["request"] * 3 + ["stopping"]
    assert "canary" not in err


def test_what_is_no_request_ends_in_a_line_of_the_log(
    served: Path, tiny_model_folder: Path
) -> None:
    with running(served, tiny_model_folder) as server:
        host, port = server.ready["address"].removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as raw:
            raw.sendall(b"canary\r\n\r\n")
            assert raw.recv(100).startswith(b"HTTP/1.1 400")
        server.process.send_signal(signal.SIGINT)
        code, _, err = server.end()
    assert code == 0
    assert "canary" not in err
    assert [json.loads(line)["event"] for line in err.splitlines()] == ["server", "stopping"]


def test_who_is_refused_may_ask_again_on_the_same_connection(
    served: Path, tiny_model_folder: Path
) -> None:
    body = json.dumps({"question": "visitors"}).encode()
    head = "POST /v1/search HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n"
    with (
        running(served, tiny_model_folder) as server,
        socket.create_connection(address(server), timeout=SECONDS) as raw,
        raw.makefile("rb") as replies,
    ):
        for host, status in (("elsewhere", 403), ("localhost", 200), ("elsewhere", 403)):
            length = f"Content-Length: {len(body)}\r\n\r\n"
            raw.sendall((head.format(host) + length).encode())
            told = replies.readline() if status == 403 else b""  # before the body was sent
            raw.sendall(body)
            lines = [told or replies.readline(), *iter(replies.readline, b"\r\n")]
            assert lines[0].split()[1] == str(status).encode()
            headers = dict(line.decode().lower().split(": ", 1) for line in lines[1:])
            assert "connection" not in headers
            replies.read(int(headers["content-length"]))
        long = (head.format("elsewhere") + f"Content-Length: {SHORT + 1}\r\n\r\n").encode()
        raw.sendall(long)
        lines = list(iter(replies.readline, b"\r\n"))
        assert b"connection: close\r\n" in [line.lower() for line in lines]
        assert replies.read().endswith(b"}")  # and then it hung up


def upload_slowly(server: Running, going: threading.Event, statuses: list[int]) -> None:
    """An upload whose end comes when it may."""

    def body() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\nSome'
        assert going.wait(SECONDS)
        yield b" words.\r\n--x--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    found = httpx2.post(
        f"{server.ready['address']}/v1/documents", content=body(), headers=headers, timeout=SECONDS
    )
    statuses.append(found.status_code)


def begun(server: Running, kind: str = "uploads") -> None:
    """Wait until the upload, or whatever it is, is inside."""
    until = time.monotonic() + SECONDS
    while f"consilience_{kind}_inside 1.0" not in server.client.get("/metrics").text:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_signal_lets_what_is_inside_finish_and_nothing_new_in(
    served: Path, tiny_model_folder: Path
) -> None:
    going, statuses = threading.Event(), list[int]()
    with running(served, tiny_model_folder, "--grace", "60") as server:
        thread = threading.Thread(target=upload_slowly, args=(server, going, statuses))
        thread.start()
        begun(server)
        server.process.send_signal(signal.SIGTERM)
        until = time.monotonic() + SECONDS
        while server.client.get("/v1/health").json()["status"] != "closing":
            assert time.monotonic() < until
        refused = httpx2.post(f"{server.ready['address']}/v1/ask", json={"question": "a"})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
        assert server.process.poll() is None
        going.set()
        thread.join(SECONDS)
        code, _, _ = server.end()
    assert (code, statuses) == (0, [202])


def test_the_grace_has_an_end(served: Path, tiny_model_folder: Path) -> None:
    head = b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
    with (
        running(served, tiny_model_folder, "--grace", "0") as server,
        socket.create_connection(address(server)) as raw,
    ):
        raw.sendall(head)
        begun(server, "searches")
        server.process.send_signal(signal.SIGTERM)
        assert server.end()[0] == 0
        assert b"408" not in rest(raw)[:20], "it waited until the body came too slowly"


def rest(raw: socket.socket) -> bytes:
    """What a server that has ended left in a connection."""
    raw.settimeout(SECONDS)
    try:
        return raw.recv(1000)
    except ConnectionError:
        return b""


def test_a_second_signal_stops_at_once(served: Path, tiny_model_folder: Path) -> None:
    going, statuses = threading.Event(), list[int]()
    with running(served, tiny_model_folder, "--grace", "3600") as server:
        thread = threading.Thread(target=_hang_up, args=(server, going, statuses))
        thread.start()
        begun(server)
        server.process.send_signal(signal.SIGTERM)
        while server.client.get("/v1/health").json()["status"] != "closing":
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        code, _, _ = server.end()
        going.set()
        thread.join(SECONDS)
    assert code == 0
    assert 408 not in statuses, "it waited until the upload came too slowly"


def _hang_up(server: Running, going: threading.Event, statuses: list[int]) -> None:
    try:
        upload_slowly(server, going, statuses)
    except httpx2.HTTPError:
        return


@pytest.mark.parametrize("twice", [False, True])
def test_the_clock_and_a_second_signal_end_the_waiting(service: Service, twice: bool) -> None:
    now = [100.0]
    config = uvicorn.Config(create_app(service), log_config=None)
    server = Server(config, service, ready=lambda: None, clock=lambda: now[0])
    service.gates.enter("asks")
    for _ in range(1 + twice):
        assert not asyncio.run(server.on_tick(1))
        server.handle_exit(signal.SIGTERM, None)
    now[0] += service.config.grace - 1
    assert asyncio.run(server.on_tick(1)) is twice
    assert server.force_exit is twice
    now[0] += 1
    assert asyncio.run(server.on_tick(1))
    LOG.flush()


def address(server: Running) -> tuple[str, int]:
    host, _, port = server.ready["address"].removeprefix("http://").rpartition(":")
    return host, int(port)


def test_a_port_that_is_taken_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError) as caught:
            listen(ServeConfig(port=port)).listen()
    assert caught.value.message == f"cannot listen at 127.0.0.1:{port}: Address already in use"
    assert caught.value.hint == (
        "take another port: consilience serve --port 0 takes any that is free"
    )


def test_a_host_that_is_not_ours_is_told() -> None:
    with pytest.raises(UsageError, match=r"cannot listen at 203\.0\.113\.1:0"):
        listen(ServeConfig(host="203.0.113.1", port=0))


def test_addresses_are_spelled_as_a_browser_takes_them() -> None:
    for host, spelled in (("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("[::1]", "[::1]")):
        config = ServeConfig(host=host, port=0)
        with listen(config) as listener:
            port = listener.getsockname()[1]
            assert address_of(config, listener) == f"http://{spelled}:{port}"
