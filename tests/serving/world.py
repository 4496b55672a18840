"""A server of the routes that work in the background, over a store whose encoder can be held."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.testclient import TestClient

from consilience.encoding import Vectors
from consilience.serving import failing
from consilience.serving.backlog import BacklogLimits
from consilience.serving.config import ServeConfig
from consilience.serving.door import Door
from consilience.serving.gates import Gates
from consilience.serving.job import Job
from consilience.serving.jobs import open_jobs
from consilience.serving.journal import Journal
from consilience.serving.keys import KeyRing
from consilience.serving.metrics import Metrics
from consilience.serving.places import Places
from consilience.serving.service import Service
from consilience.store import Store
from consilience.training.settings import parse_settings
from tests.serving.small import bearer
from tests.store.doubles import HashingEncoder

SECONDS = 30.0
"""How long a test waits for what must come."""


@dataclass
class HeldEncoder(HashingEncoder):
    """Embeds when it may."""

    may: threading.Event = field(default_factory=threading.Event)
    asked: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.may.set()

    def hold(self) -> None:
        self.asked.clear()
        self.may.clear()

    def encode_passages(self, passages: Sequence[str]) -> Vectors:
        self.asked.set()
        assert self.may.wait(SECONDS)
        return super().encode_passages(passages)


@dataclass
class World:
    """A service, and whom it answers."""

    service: Service
    encoder: HeldEncoder
    app: FastAPI
    lines: list[dict[str, Any]]

    @property
    def store(self) -> Store:
        return self.service.store

    def client(self, secret: str = "") -> TestClient:
        headers = bearer(secret) if secret else {}
        return TestClient(self.app, "http://127.0.0.1:8123", headers=headers)

    def key(self, name: str, *scopes: Any, labels: tuple[str, ...] | None = None) -> TestClient:
        """A client with a key of its own."""
        made = self.service.keys.create(name, scopes=scopes, labels=labels)
        return self.client(made.secret)

    def files(self) -> list[str]:
        """What lies in the folder of uploads, but for the database."""
        folder = self.service.jobs.shelf.folder
        return sorted(p.name for p in folder.iterdir() if not p.name.startswith("uploads.sqlite3"))


@contextmanager
def world(
    folder: Path,
    *,
    rag: Any = None,
    desk: Any = None,
    encoder: HeldEncoder | None = None,
    backlog: BacklogLimits | None = None,
    on_change: Callable[[Job | None], None] | None = None,
    **settings: Any,
) -> Iterator[World]:
    """A service in a folder; opening another in the same folder is a start anew."""
    encoder = encoder or HeldEncoder()
    values = {"store": str(folder / "knowledge"), "runs": str(folder / "runs")}
    config = parse_settings(ServeConfig, values | settings, source="the test", verb="serve")
    with Store.open(config.store, encoder=encoder) as store:
        jobs = open_jobs(store, rag, desk=desk, config=config, limits=backlog, on_change=on_change)
        keys, gates, metrics = KeyRing(config.key_path), Gates(config.limits), Metrics()
        service = Service(config, store, rag, desk, jobs, keys, gates, metrics)
        app, lines = _app(service)
        try:
            yield World(service, encoder, app, lines)
        finally:
            jobs.close(SECONDS)


def _app(service: Service) -> tuple[FastAPI, list[dict[str, Any]]]:
    app, lines = FastAPI(), list[dict[str, Any]]()
    app.state.service = service
    names = ("documents", "jobs", "evaluations", "runs")
    modules = [import_module(f"consilience.serving.routes.{name}") for name in names]
    for module in modules:
        app.include_router(module.router)
    routes = [r for module in modules for r in module.router.routes if isinstance(r, APIRoute)]
    failing.install(app)
    app.add_middleware(Door, service=service, places=Places(routes))
    app.add_middleware(Journal, metrics=service.metrics, write=lines.append)
    return app, lines


def until(what: Callable[[], Any]) -> Any:
    """What something says once it is no longer nothing."""
    end = time.monotonic() + SECONDS
    while not (found := what()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)
    return found


def ended(client: TestClient, job: dict[str, Any]) -> dict[str, Any]:
    """A job when it is over."""

    def over() -> dict[str, Any] | None:
        found = client.get(f"/v1/jobs/{job['id']}").json()
        return found if found["state"] in ("done", "failed", "cancelled") else None

    return until(over)


def sent(client: TestClient, *files: tuple[str, bytes], **fields: Any) -> list[dict[str, Any]]:
    """The jobs of an upload."""
    found = client.post("/v1/documents", files=[("files", one) for one in files], data=fields)
    assert found.status_code == 202, found.text
    return found.json()["jobs"]


def uploaded(client: TestClient, name: str, data: bytes, **fields: Any) -> dict[str, Any]:
    """The job of one file when it is over."""
    (job,) = sent(client, (name, data), **fields)
    return ended(client, job)
