"""A small service to send requests to: a real store, a model of random weights, few documents."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from consilience import Document, Store
from consilience.encoding import load_encoder
from consilience.serving.app import create_app
from consilience.serving.config import ServeConfig
from consilience.serving.files import write_whole
from consilience.serving.service import Service, open_service
from consilience.training.settings import parse_settings

OPEN = "Visitors are welcome on weekdays from 14:30 to 20:00. Children come with an adult."
HIDDEN = "The visitors of the safe know the word heliotrope. Nobody else does."
CHINESE = "工作满一年的员工每年有五天年假。请假应当提前三天提出。"

DOCUMENTS = (
    Document(OPEN, "visits.md", title="Visiting hours", contributor="ward"),
    Document(HIDDEN, "safe.txt", title="The safe", access=("staff",), metadata={"vault": "seven"}),
    Document(CHINESE, "请假.txt", title="请假办法", contributor="人事处"),
)
"""One for everyone, one for those who hold `staff`, one in Chinese for everyone."""


def write_store(folder: Path, model: Path) -> None:
    """Make the store that a service opens."""
    with Store.open(folder / "knowledge", encoder=load_encoder(model)) as store:
        store.add(*DOCUMENTS)


@contextmanager
def small_service(folder: Path, model: Path, **settings: Any) -> Iterator[Service]:
    """A service over the documents, in a folder of its own.

    Args:
        folder: Where its store and files are.
        model: A model folder.
        **settings: As the config has them.
    """
    if not (folder / "knowledge").exists():
        write_store(folder, model)
    values = {"store": str(folder / "knowledge"), "model": str(model), "runs": str(folder / "runs")}
    config = parse_settings(ServeConfig, values | settings, source="the test", verb="serve")
    service = open_service(config, path=folder / "serve.yaml")
    try:
        yield service
    finally:
        service.close()


def client_of(service: Service, **headers: str) -> tuple[TestClient, list[dict[str, Any]]]:
    """Someone on the same machine, and the log that the server writes."""
    lines: list[dict[str, Any]] = []
    app = create_app(service, write=lines.append)
    return TestClient(app, "http://127.0.0.1:8123", headers=headers), lines


def bearer(secret: str) -> dict[str, str]:
    """The header of a key."""
    return {"Authorization": f"Bearer {secret}"}


def events_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The events of a stream, comments left out."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if line and line[0] != ":")
        if lines:
            found.append((lines.get("event", ""), json.loads(lines["data"])))
    return found


def end_key(service: Service, id_: str) -> None:
    """Let a key have expired."""
    found = json.loads(service.keys.path.read_text("utf-8"))
    for key in found["keys"]:
        if key["id"] == id_:
            key["expires"] = "2020-01-01T00:00:00+00:00"
    write_whole(service.keys.path, json.dumps(found))
