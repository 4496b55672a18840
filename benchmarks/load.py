"""How a server holds up: searches, streams, overload and a long mixed load, over real connections.

The server is a process of its own; the client is this one, on the same machine, and so takes its
share of the processor. Searches are sent at fixed times whether or not earlier ones were answered
(an open loop), so that a server that falls behind cannot hide it by being asked less.

    python benchmarks/load.py --data DIR --out docs/benchmarks/load.md

Passages are paragraphs of English Wikipedia of 2015 (`en_wikipedia_2015` of the data folder), their
vectors random: what is measured is serving, not finding. Questions are words of the passages.
"""

import argparse
import asyncio
import gzip
import json
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from consilience import Passage, Store
from consilience.encoding import Encoder, load_encoder

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

PASSAGES = 100_000
CHARACTERS = 500
"""Of a passage."""


@dataclass
class StandIn:
    """Stands for an encoder while a store is made."""

    inner: Encoder

    @property
    def fingerprint(self) -> str:
        """That of the encoder that answers later."""
        return self.inner.fingerprint

    @property
    def dimension(self) -> int:
        """Likewise."""
        return self.inner.dimension


class RandomVectors(StandIn):
    """Vectors of length one, of no meaning."""

    def encode_passages(self, passages: Sequence[str]) -> Any:
        """`[passages, dimension]`."""
        drawn = np.random.default_rng(len(passages)).normal(size=(len(passages), self.dimension))
        return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)

    def encode_questions(self, questions: Sequence[str]) -> Any:
        """`[questions, dimension]`."""
        return self.encode_passages(questions)


def paragraphs(data: Path) -> Iterator[str]:
    """Texts of about `CHARACTERS` characters."""
    for path in sorted((data / "en_wikipedia_2015").glob("train-*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                text = json.loads(line)["text"]
                for start in range(0, len(text) - CHARACTERS, CHARACTERS):
                    yield text[start : start + CHARACTERS]


def make_store(folder: Path, data: Path, count: int) -> list[str]:
    """A store of `count` passages; some of its texts, from which questions are made."""
    texts = [text for text, _ in zip(paragraphs(data), range(count), strict=False)]
    with Store.open(folder, encoder=RandomVectors(load_encoder())) as store:
        for start in range(0 if not len(store) else len(texts), len(texts), 2000):
            part = texts[start : start + 2000]
            source = f"part {start}"
            store.add(
                [
                    Passage(f"{start + i}", text, "", source, None, 0, len(text))
                    for i, text in enumerate(part)
                ]
            )
    return texts[:: max(1, len(texts) // 2000)]


def question_of(text: str, draw: random.Random) -> str:
    """Six words in a row."""
    words = text.split()
    place = draw.randrange(max(1, len(words) - 6))
    return " ".join(words[place : place + 6])


@contextmanager
def served(store: Path, *flags: str) -> Iterator[tuple[str, int, int]]:
    """A server of a store: its host, its port and its process id."""
    code = "import sys; from consilience.cli.main import run; sys.exit(run(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "serve", "--json", "--store", str(store), "--port", "0"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, stderr=log)
        try:
            assert process.stdout is not None
            address = json.loads(process.stdout.readline())["address"]
            host, _, port = address.removeprefix("http://").rstrip("/").rpartition(":")
            yield host, int(port), process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def resident_mb(process: int) -> tuple[float, float]:
    """Memory of a process in MB: its own, and with the pages of files that it has looked at."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    known = {line.split(":")[0]: line.split()[1] for line in lines if line.endswith("kB")}
    return int(known["RssAnon"]) / 1000, int(known["VmRSS"]) / 1000


def processor_seconds(process: int) -> float:
    """What a process has had of the processor so far, all its threads."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Connection:
    """One HTTP/1.1 connection that is used again and again.

    A client of a hundred lines of library would take more of the processor than the server does.
    """

    host: str
    port: int
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None

    async def post(self, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        """Status and body."""
        status, headers = await self.begin(path, body)
        assert self.reader is not None
        found = await self.reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection", "").lower() == "close":
            await self.close()
        return status, found

    async def begin(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, str]]:
        """Status and headers."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        assert self.reader is not None
        text = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
        )
        self.writer.write(head.encode() + text)
        await self.writer.drain()
        raw = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in raw[1:] if ": " in line)
        return int(raw[0].split()[1]), headers

    async def lines(self) -> Any:
        """Lines of a body that is sent in chunks."""
        assert self.reader is not None
        while size := int((await self.reader.readline()).strip() or b"0", 16):
            chunk = await self.reader.readexactly(size)
            await self.reader.readexactly(2)
            for line in chunk.splitlines():
                yield line

    async def close(self) -> None:
        """Give it up."""
        if self.writer is not None:
            self.writer.close()
            with suppress(OSError):
                await self.writer.wait_closed()
        self.reader = self.writer = None


@dataclass(slots=True)
class Tally:
    """What came of many requests: seconds and outcomes."""

    seconds: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)

    def row(self, name: str) -> str:
        """A row of the table."""
        ms = sorted(1000 * s for s in self.seconds) or [float("nan")]
        p = [ms[min(len(ms) - 1, int(len(ms) * q))] for q in (0.5, 0.95, 0.99)]
        outcomes = ", ".join(f"{n} {k}" for k, n in sorted(self.outcomes.items()))
        return f"| {name} | {p[0]:.1f} | {p[1]:.1f} | {p[2]:.1f} | {ms[-1]:.0f} | {outcomes} |"


Send = Callable[[Connection], Awaitable[str]]
"""One request over a connection; its outcome."""


async def open_loop(
    at: tuple[str, int], send: Send, *, rate: float, seconds: float, connections: int
) -> Tally:
    """Send at fixed times; what no connection was free for waits, and its waiting counts."""
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(connections):
        free.put_nowait(Connection(*at))
    tally, tasks = Tally(), set()

    async def one(due: float) -> None:
        connection = await free.get()
        try:
            outcome = await send(connection)
        except (OSError, asyncio.IncompleteReadError) as error:
            outcome = type(error).__name__
            await connection.close()
        tally.outcomes[outcome] += 1
        tally.seconds.append(time.perf_counter() - due)
        free.put_nowait(connection)

    begun = time.perf_counter()
    for number in range(int(rate * seconds)):
        due = begun + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.ensure_future(one(due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    while not free.empty():
        await free.get_nowait().close()
    return tally


def searching(texts: Sequence[str], draw: random.Random, mode: str) -> Send:
    """A search, five passages."""

    async def send(connection: Connection) -> str:
        question = question_of(draw.choice(texts), draw)
        body = {"question": question, "k": 5, "mode": mode}
        status, found = await connection.post("/v1/search", body)
        if status == 200 and not json.loads(found)["hits"]:
            return "empty"
        return str(status)

    return send


async def stream_once(at: tuple[str, int], question: str) -> tuple[str, float, float]:
    """Outcome of a streamed answer, seconds to its first token, and to its end."""
    connection, begun, first = Connection(*at), time.perf_counter(), 0.0
    try:
        status, _ = await connection.begin(
            "/v1/ask", {"question": question, "stream": True, "abstain": False}
        )
        if status != 200:
            return str(status), 0.0, time.perf_counter() - begun
        outcome = "dropped"
        async for line in connection.lines():
            if line == b"event: token" and not first:
                first = time.perf_counter() - begun
            if line in (b"event: answer", b"event: error"):
                outcome = line.decode().removeprefix("event: ")
        return outcome, first, time.perf_counter() - begun
    except (OSError, asyncio.IncompleteReadError) as error:
        return type(error).__name__, first, time.perf_counter() - begun
    finally:
        await connection.close()


async def streams(at: tuple[str, int], questions: Sequence[str]) -> tuple[Tally, Tally]:
    """All at once: to the first token, and to the end."""
    found = await asyncio.gather(*(stream_once(at, one) for one in questions))
    firsts = Tally([first for _, first, _ in found if first], Counter())
    wholes = Tally([whole for _, _, whole in found], Counter(kind for kind, _, _ in found))
    return firsts, wholes


def watched(at: tuple[str, int], question: str, seconds: float, told: "Queue[Any]") -> None:
    """One client more, calm and in a process of its own: what each of its searches came to.

    A client that sends a thousand requests a second is out of breath itself, and its times are as
    much its own as the server's.
    """
    asyncio.run(_calm(at, question, seconds, told))
    told.put(None)


async def _calm(at: tuple[str, int], question: str, seconds: float, told: "Queue[Any]") -> None:
    body, until = {"question": question, "k": 5, "mode": "hybrid"}, time.perf_counter() + seconds
    while time.perf_counter() < until:
        begun, connection = time.perf_counter(), Connection(*at)
        status, _ = await connection.post("/v1/search", body)
        told.put((str(status), time.perf_counter() - begun))
        await connection.close()
        await asyncio.sleep(0.05)


def noticed(told: "Queue[Any]") -> Tally:
    """What the calm client was refused."""
    tally = Tally()
    for status, seconds in iter(told.get, None):
        tally.outcomes[status] += 1
        if status != "200":
            tally.seconds.append(seconds)
    return tally


async def overload(
    at: tuple[str, int], texts: Sequence[str], *, rate: float, seconds: float
) -> tuple[Tally, Tally, Tally, float]:
    """Many times what the server can.

    Returns:
        Those answered, those refused, those of a calm client that were refused, and the seconds
        until things are normal again.
    """
    draw, told = random.Random(3), get_context("spawn").Queue()
    send, answered, refused = searching(texts, draw, "hybrid"), Tally(), Tally()
    calm = get_context("spawn").Process(
        target=watched, args=(at, question_of(draw.choice(texts), draw), seconds, told)
    )

    async def noted(connection: Connection) -> str:
        begun = time.perf_counter()
        outcome = await send(connection)
        tally = answered if outcome == "200" else refused
        tally.outcomes[outcome] += 1
        tally.seconds.append(time.perf_counter() - begun)
        return outcome

    calm.start()
    await open_loop(at, noted, rate=rate, seconds=seconds, connections=600)
    begun, quick = time.perf_counter(), 0
    connection = Connection(*at)
    while quick < 5:
        start = time.perf_counter()
        outcome = await send(connection)
        quick = quick + 1 if outcome == "200" and time.perf_counter() - start < 0.1 else 0
    await connection.close()
    back = time.perf_counter() - begun
    found = await asyncio.to_thread(noticed, told)
    calm.join()
    return answered, refused, found, back


async def soak(
    at: tuple[str, int], pid: int, texts: Sequence[str], *, seconds: float
) -> tuple[Counter[str], list[tuple[float, float]]]:
    """Asking, adding, deleting and cancelling; outcomes, and the memory every half minute."""
    draw, outcomes, memory = random.Random(4), Counter[str](), list[tuple[float, float]]()
    until, noted = time.perf_counter() + seconds, 0.0
    number = 0
    while time.perf_counter() < until:
        number += 1
        source = f"soak {number % 20}.txt"
        text = draw.choice(texts)
        outcomes[await upload(at, source, f"{text} {number}")] += 1
        for _ in range(5):
            outcomes["ask " + (await stream_once(at, question_of(text, draw)))[0]] += 1
        outcomes[await cancelled(at, question_of(text, draw))] += 1
        outcomes[await removed(at, f"soak {(number + 10) % 20}.txt")] += 1
        if time.perf_counter() - noted > 30:
            noted = time.perf_counter()
            memory.append(resident_mb(pid))
    return outcomes, memory


async def raw(at: tuple[str, int], head: str, body: bytes = b"") -> int:
    """The status of a request on a connection of its own."""
    reader, writer = await asyncio.open_connection(*at)
    lines = (
        f"{head}\r\nHost: {at[0]}:{at[1]}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    )
    if body:
        lines += "Content-Type: multipart/form-data; boundary=B\r\n"
    writer.write(lines.encode() + b"\r\n" + body)
    status = int((await reader.readline()).split()[1])
    await reader.read()
    writer.close()
    return status


async def upload(at: tuple[str, int], name: str, text: str) -> str:
    """One small file."""
    part = f'--B\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    body = f"{part}{text}\r\n--B--\r\n".encode()
    return f"upload {await raw(at, 'POST /v1/documents HTTP/1.1', body)}"


async def removed(at: tuple[str, int], name: str) -> str:
    """A document that is there or not yet."""
    place = name.replace(" ", "%20")
    return f"delete {await raw(at, f'DELETE /v1/documents?source={place} HTTP/1.1')}"


async def cancelled(at: tuple[str, int], question: str) -> str:
    """A question whose asker hangs up."""
    connection = Connection(*at)
    status, _ = await connection.begin("/v1/ask", {"question": question, "stream": True})
    async for line in connection.lines():
        if line.startswith(b"event: retrieved"):
            break
    await connection.close()
    return f"cancel {status}"


def painted(at: tuple[str, int], times: int = 9) -> tuple[Tally, float]:
    """First contentful paint of the page in fresh browsers' profiles; bytes of what it loads."""
    from playwright.sync_api import sync_playwright

    tally, weight = Tally(), 0.0
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        for _ in range(times):
            context = browser.new_context()
            page = context.new_page()
            page.goto(f"http://{at[0]}:{at[1]}/")
            page.wait_for_selector("html[data-ready]")
            tally.seconds.append(page.evaluate(_PAINT) / 1000)
            weight = page.evaluate(_WEIGHT)
            context.close()
        browser.close()
    return tally, weight


_PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
_WEIGHT = "performance.getEntries().reduce((sum, one) => sum + (one.transferSize || 0), 0)"


async def measured(
    args: argparse.Namespace, at: tuple[str, int], pid: int, texts: list[str]
) -> str:
    """Every part that was asked for, as tables."""
    draw, parts = random.Random(1), args.parts
    rows, told = ["| what | p50 ms | p95 ms | p99 ms | longest ms | outcomes |"], list[str]()
    rows.append("| --- | --- | --- | --- | --- | --- |")
    await open_loop(at, searching(texts, draw, "hybrid"), rate=20, seconds=5, connections=8)
    if "search" in parts:
        for mode in ("bm25", "hybrid"):
            send, before = searching(texts, draw, mode), processor_seconds(pid)
            tally = await open_loop(at, send, rate=args.rate, seconds=args.seconds, connections=64)
            used = 1000 * (processor_seconds(pid) - before) / max(1, len(tally.seconds))
            rows.append(
                tally.row(f"{args.rate:g} searches a second for {args.seconds:.0f} s, {mode}")
            )
            told.append(f"A search ({mode}) takes the server {used:.1f} ms of processor time.")
            print(rows[-1], told[-1], sep="\n", flush=True)
    if "first" in parts:
        firsts = [
            (await stream_once(at, question_of(draw.choice(texts), draw)))[1] for _ in range(30)
        ]
        rows.append(Tally([one for one in firsts if one]).row("first token, one user"))
        print(rows[-1], flush=True)
    if "page" in parts:
        paint, weight = await asyncio.to_thread(painted, at)
        rows.append(paint.row("first paint of the page, fresh profile"))
        told.append(f"The page loads {weight / 1000:.0f} kB before anything is asked.")
        print(rows[-1], told[-1], sep="\n", flush=True)
    if "streams" in parts:
        asked = [question_of(draw.choice(texts), draw) for _ in range(200)]
        first, whole = await streams(at, asked)
        rows += [first.row("200 streams at once: first token"), whole.row("200 streams: the end")]
        print(*rows[-2:], sep="\n", flush=True)
    if "overload" in parts:
        answered, refused, calm, back = await overload(
            at, texts, rate=args.overload_rate, seconds=args.overload_seconds
        )
        rows += [answered.row("overload: answered"), refused.row("overload: refused")]
        rows.append(calm.row("overload: refused, as a client beside sees it"))
        told.append(f"After the overload the server was back to normal within {back:.1f} s.")
        print(*rows[-3:], told[-1], sep="\n", flush=True)
    if "soak" in parts:
        outcomes, memory = await soak(at, pid, texts, seconds=args.soak_seconds)
        own = [one for one, _ in memory]
        early, late = statistics.median(own[1:4] or own), statistics.median(own[-3:])
        marks = [memory[(len(memory) - 1) * part // 6] for part in range(7)]
        told.append(
            f"Soak of {args.soak_seconds:.0f} s: {dict(sorted(outcomes.items()))}; the server's "
            f"own memory {early:.0f} MB at first, {late:.0f} MB at the end "
            f"({100 * (late / early - 1):+.1f} %); by sixths of the time, in brackets with the "
            "pages of files: " + ", ".join(f"{mine:.0f} ({all_:.0f})" for mine, all_ in marks)
        )
        print(told[-1], flush=True)
    return "\n".join(rows) + "\n\n" + "\n".join(told) + "\n"


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True, help="the folder of open data sets")
    parser.add_argument("--out", type=Path, help="write the page here")
    parser.add_argument("--store", type=Path, help="a store made by an earlier call, or a new one")
    parser.add_argument("--passages", type=int, default=PASSAGES)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--overload-rate", type=float, default=1000)
    parser.add_argument("--overload-seconds", type=float, default=120)
    parser.add_argument("--soak-seconds", type=float, default=3600)
    parts = ["search", "first", "page", "streams", "overload", "soak"]
    parser.add_argument("--parts", nargs="+", default=parts, choices=parts)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = args.store or Path(folder) / "knowledge"
        texts = make_store(place, args.data, args.passages)
        with served(place) as (host, port, pid):
            table = asyncio.run(measured(args, (host, port), pid, texts))
    page = f"{_head(args)}\n{table}"
    if args.out:
        args.out.write_text(page, encoding="utf-8")


def _head(args: argparse.Namespace) -> str:
    from consilience.version import __version__

    return (
        f"# Serving under load\n\n{time.strftime('%Y-%m-%d')}, consilience {__version__}, Python "
        f"{platform.python_version()}, 2 cores, client on the same machine, {args.passages:,} "
        "passages. Made by\n\n    python benchmarks/load.py --data DIR\n"
    )


if __name__ == "__main__":
    main()
