"""A server with the routes of the real one and states that a test chooses.

It stands in where the real one cannot be brought into a state on purpose: an answer that comes
slowly, a heat map of known numbers, a key that is asked for, a passage written by an enemy.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint

import consilience
from consilience.serving.journal import HEADERS

WEB = Path(consilience.__file__).parent / "web"
POLICY = HEADERS["Content-Security-Policy"]
ENDED = ("done", "failed", "cancelled")
Step = tuple[float, str, dict[str, Any]]
"""Seconds to wait, the name of an event, and its data."""


def hit(name: str, text: str, **more: Any) -> dict[str, Any]:
    """A passage as a search finds it."""
    found = {"id": name, "score": 1.0, "title": name.title(), "source": f"{name}.txt", "page": None}
    return {**found, "start": 0, "end": len(text), "text": text, **more}


def cited(found: dict[str, Any], share: float, quotes: list[dict[str, Any]]) -> dict[str, Any]:
    """A citation of a passage."""
    kept = {key: value for key, value in found.items() if key not in ("id", "score")}
    return {"passage_id": found["id"], **kept, "posterior": share, "quotes": quotes}


@dataclass
class Fake:
    """What the server has and does.

    Attributes:
        texts: The text of every document, by source.
        titles: The title of those that have one.
        pages: The pages of those that have any.
        images: The picture of a page.
        answers: The events of the next questions, in their order; the last one stays.
        asked: Every question that came, as it came.
        stopped: How many answers were broken off by whoever listened.
        jobs: Jobs by id.
        runs: The points of training runs, and what comes while they are watched.
        settings: As `GET /v1/settings`.
        evaluations: As `GET /v1/evaluations`.
        key: The key that is asked for.
        refused: An error that every question gets.
    """

    texts: dict[str, str] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    pages: dict[str, list[dict[str, int]]] = field(default_factory=dict)
    images: dict[tuple[str, int], bytes] = field(default_factory=dict)
    answers: list[list[Step]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    stopped: int = 0
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    steps: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    acts: list[str] = field(default_factory=list)
    uploads: list[dict[str, Any]] = field(default_factory=list)
    runs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    coming: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    put: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    key: str | None = None
    refused: dict[str, Any] | None = None


def fault(status: int, kind: str, message: str, hint: str = "") -> JSONResponse:
    """An error as every route gives it."""
    told = {"code": 2, "kind": kind, "message": message, "hint": hint, "explanation": ""}
    return JSONResponse({"error": told}, status_code=status)


def event(name: str, data: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def application(fake: Fake) -> FastAPI:
    """The server."""
    app = FastAPI()
    app.add_middleware(BaseHTTPMiddleware, dispatch=_guarded(fake))
    _add_asking(app, fake)
    _add_documents(app, fake)
    _add_jobs(app, fake)
    _add_runs(app, fake)
    _add_settings(app, fake)
    app.mount("/", StaticFiles(directory=WEB, html=True))
    return app


def _guarded(fake: Fake) -> Any:
    async def dispatch(request: Request, call_next: RequestResponseEndpoint) -> Response:
        path = request.url.path
        free = not path.startswith("/v1/") or path == "/v1/health" or fake.key is None
        if not free and request.headers.get("authorization") != f"Bearer {fake.key}":
            return fault(401, "unauthenticated", "no valid key")
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = POLICY
        return response

    return dispatch


def _add_asking(app: FastAPI, fake: Fake) -> None:
    @app.get("/v1/health")
    def health() -> dict[str, Any]:
        return {"status": "ok", "version": "0", "model": "tiny", "documents": len(fake.texts)}

    @app.post("/v1/ask")
    async def ask(request: Request) -> Response:
        fake.asked.append(await request.json())
        if fake.refused is not None:
            return fault(**fake.refused)
        steps = fake.answers.pop(0) if len(fake.answers) > 1 else fake.answers[0]
        return StreamingResponse(_told(fake, steps), media_type="text/event-stream")

    @app.delete("/v1/ask/{name}")
    def stop(name: str) -> dict[str, Any]:
        fake.acts.append(f"stop {name}")
        return {"id": name, "stopped": True}


async def _told(fake: Fake, steps: list[Step]) -> AsyncIterator[bytes]:
    finished = False
    try:
        for pause, name, data in steps:
            await asyncio.sleep(pause)
            yield event(name, data)
        finished = True
    finally:
        fake.stopped += not finished


def _add_documents(app: FastAPI, fake: Fake) -> None:
    @app.get("/v1/documents")
    def documents(offset: int = 0, limit: int = 100, query: str = "") -> dict[str, Any]:
        found = [_listed(fake, name) for name in fake.texts if query.lower() in name.lower()]
        return {"documents": found[offset : offset + limit], "total": len(found)}

    @app.delete("/v1/documents")
    def remove(source: str) -> dict[str, Any]:
        del fake.texts[source]
        return {"removed": [source], "generation": 2}

    @app.post("/v1/documents", status_code=202)
    async def add(request: Request) -> Any:
        form = await request.form()
        found = []
        for file in form.getlist("files"):
            assert not isinstance(file, str)
            fake.uploads.append({"name": file.filename, "access": form.getlist("access")})
            if str(file.filename).endswith(".exe"):
                return fault(422, "document", "no reader for .exe", "add PDF, Word or text")
            found.append(_begun(fake, str(file.filename), (await file.read()).decode()))
        return {"jobs": found}

    @app.get("/v1/documents/text")
    def text(source: str, start: int = 0, end: int = 1_000_000) -> Any:
        if source not in fake.texts:
            return fault(404, "missing", f"there is no document {source!r}", "GET /v1/documents")
        whole, pages = fake.texts[source], fake.pages.get(source, [])
        end = min(end, len(whole))
        about = {"source": source, "title": fake.titles.get(source, ""), "total": len(whole)}
        return {**about, "text": whole[start:end], "start": start, "end": end, "pages": pages}

    @app.get("/v1/documents/page")
    def page(source: str, page: int, width: int = 900) -> Response:
        found = fake.images.get((source, page))
        if found is None:
            return fault(404, "missing", "no original")
        return Response(found, media_type="image/png")

    @app.get("/v1/documents/page/boxes")
    def boxes(source: str, page: int, start: int, end: int) -> dict[str, Any]:
        fake.acts.append(f"boxes {source} {page} {start} {end}")
        return {"boxes": [[0.1, 0.2, 0.5, 0.25]], "complete": True}


def _listed(fake: Fake, name: str) -> dict[str, Any]:
    more = {"language": "en", "contributor": "", "access": [], "passages": 1}
    text = fake.texts[name]
    return {"source": name, "title": fake.titles.get(name, ""), "characters": len(text), **more}


def _begun(fake: Fake, name: str, text: str) -> dict[str, Any]:
    job = job_of(f"job-{len(fake.jobs)}", name, "waiting")
    fake.jobs[job["id"]] = job
    fake.texts[name] = text
    return job


def job_of(id_: str, name: str, state: str, **more: Any) -> dict[str, Any]:
    """A job."""
    plain = {"kind": "document", "rate": 0.0, "done_bytes": 0, "total_bytes": 100, "passages": 0}
    times = {"seconds_left": None, "error": None, "created": "2026-01-05T10:00:00Z"}
    return {"id": id_, "name": name, "state": state, **plain, **times, **more}


def _add_jobs(app: FastAPI, fake: Fake) -> None:
    @app.get("/v1/jobs")
    def jobs() -> dict[str, Any]:
        return {"jobs": list(fake.jobs.values())}

    @app.post("/v1/jobs/{name}/{act}")
    def act(name: str, act: str) -> dict[str, Any]:
        fake.acts.append(f"{act} {name}")
        state = {"cancel": "cancelled", "retry": "waiting"}[act]
        fake.jobs[name] = {**fake.jobs[name], "state": state, "error": None}
        return fake.jobs[name]

    @app.get("/v1/jobs/events")
    def events() -> Response:
        return StreamingResponse(_jobs_told(fake), media_type="text/event-stream")


async def _jobs_told(fake: Fake) -> AsyncIterator[bytes]:
    """Every job goes through its steps, and then is done."""
    while True:
        waiting = [job for job in fake.jobs.values() if job["state"] not in ENDED]
        for job in waiting:
            done = [{"state": "done", "passages": 3, "done_bytes": 100}]
            for step in fake.steps.get(job["name"], done):
                await asyncio.sleep(step.get("pause", 0.02))
                if fake.jobs[job["id"]]["state"] == "cancelled":
                    break
                fake.jobs[job["id"]] = {**fake.jobs[job["id"]], **step}
                yield event("job", fake.jobs[job["id"]])
        await asyncio.sleep(0.05)
        yield b": alive\n\n"


def _add_runs(app: FastAPI, fake: Fake) -> None:
    @app.get("/v1/runs")
    def runs() -> dict[str, Any]:
        return {"runs": [_run(fake, name) for name in fake.runs]}

    @app.get("/v1/runs/{name}")
    def run(name: str) -> dict[str, Any]:
        return {"name": name, "points": fake.runs[name]}

    @app.get("/v1/runs/{name}/events")
    def events(name: str, after: int = -1) -> Response:
        return StreamingResponse(_points_told(fake, name), media_type="text/event-stream")

    @app.get("/v1/evaluations")
    def evaluations() -> dict[str, Any]:
        return {"evaluations": fake.evaluations}

    @app.delete("/v1/evaluations/{name}", status_code=204)
    def forget(name: str) -> Response:
        fake.evaluations = [one for one in fake.evaluations if one["id"] != name]
        return Response(status_code=204)

    @app.post("/v1/evaluations/{name}/link", status_code=201)
    def link(name: str) -> dict[str, Any]:
        return {"url": f"/reports/{name}", "seconds": 600}

    @app.get("/reports/{name}")
    @app.get("/v1/evaluations/{name}/report")
    def report(name: str) -> Response:
        return Response("<h1>report</h1>", media_type="text/html")

    @app.post("/v1/evaluations", status_code=202)
    async def evaluate(request: Request) -> Any:
        form = await request.form()
        fake.acts.append(f"evaluate {form.get('name')} {form.get('limit')}")
        job = job_of("e1", str(form.get("name")), "reading", kind="evaluation", done=3, total=9)
        fake.jobs["e1"] = job
        return job


def _run(fake: Fake, name: str) -> dict[str, Any]:
    points = fake.runs[name]
    state = "running" if fake.coming.get(name) else "done"
    steps = points[-1]["step"] if points else 0
    more = {"total": None, "objective": "token", "started": "2026-01-05T10:00:00Z"}
    return {"name": name, "steps": steps, "state": state, **more}


async def _points_told(fake: Fake, name: str) -> AsyncIterator[bytes]:
    while fake.coming.get(name):
        await asyncio.sleep(0.15)
        found = fake.coming[name].pop(0)
        fake.runs[name].append(found)
        yield event("points", {"points": [found]})
        yield event("run", _run(fake, name))


def _add_settings(app: FastAPI, fake: Fake) -> None:
    @app.get("/v1/settings")
    def settings() -> dict[str, Any]:
        return fake.settings

    @app.put("/v1/settings")
    async def change(request: Request) -> Any:
        values = (await request.json())["values"]
        fake.put.append(values)
        wrong = [
            f"{key} is {value!r}, allowed: a whole number from 1 to 1000"
            for key, value in values.items()
            if value == 0
        ]
        if wrong:
            told = f"{len(wrong)} mistakes in the settings: " + "; ".join(wrong)
            return fault(400, "usage", told, "consilience serve --help")
        for one in fake.settings["settings"]:
            if one["key"] in values:
                one["file"] = values[one["key"]]
        return fake.settings
