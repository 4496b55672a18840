"""Every operation of the OpenAPI document with requests that a program made up.

Whatever is sent, the server makes no mistake, answers as it says that it does, and lets in nobody
whom it does not know.
"""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from starlette.types import ASGIApp, Receive, Scope, Send

from consilience.serving.app import create_app
from consilience.serving.config import ServeConfig
from consilience.serving.gates import Gates
from consilience.serving.keys import KeyRing
from consilience.serving.metrics import Metrics
from consilience.serving.service import Service
from tests.serving.small import bearer, small_service

CASES = 50
"""Requests for each operation."""

OPINIONS = (negative_data_rejection, positive_data_acceptance)
"""Checks that hold a server to its schema alone, which knows neither of settings nor of sizes."""

HOST = "127.0.0.1:8123"


class Front:
    """Stands where the requests go while tests are collected, and hands them to a server later."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def describing() -> ASGIApp:
    """Enough of a server to hand out the OpenAPI document."""
    config = ServeConfig()
    parts = {"config": config, "keys": KeyRing(Path("nowhere")), "metrics": Metrics()}
    service = SimpleNamespace(**parts, gates=Gates(config.limits))
    return create_app(cast(Service, service), write=lambda _: None)


front = Front()
front.app = describing()
schema = schemathesis.openapi.from_asgi("/openapi.json", front, headers={"Host": HOST})
# What has no end is followed in the tests of its own.
schema = schema.exclude(path_regex=r".*/events$")


@pytest.fixture(scope="module")
def headers(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model_folder: Path,
    lines: list[dict[str, Any]],
) -> Iterator[dict[str, str]]:
    """The headers of an admin of a server behind the front."""
    folder = tmp_path_factory.mktemp("fuzzed")
    with small_service(folder, tiny_model_folder, limits={"rate": 0}) as service:
        made = service.keys.create("fuzzer", scopes=("admin",))
        front.app = create_app(service, write=lines.append)
        yield {"Host": HOST, **bearer(made.secret)}


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    """The log of that server."""
    return []


@schema.parametrize()
@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_request_is_answered_with_a_mistake(
    case: Any, headers: dict[str, str], lines: list[dict[str, Any]]
) -> None:
    case.call_and_validate(headers=headers, excluded_checks=OPINIONS)
    mistakes = [line for line in lines if line["event"] == "mistake"]
    lines.clear()
    assert not mistakes
