import asyncio
import base64

import pytest

from consilience.federation.flower.guard import FLEET, REGISTER, behind, private_door, public_door

KEY = b"-----BEGIN PUBLIC KEY-----\nnorth\n-----END PUBLIC KEY-----\n"
SHOWN = (b"flwr-public-key", base64.b64encode(KEY))
LONG = (b"content-length", b"12")


def status(door, method, path, *headers, kind="http"):
    passed, sent = [], []

    async def app(scope, receive, send):
        passed.append(scope)

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "method": method, "path": path, "headers": list(headers)}
    asyncio.run(behind(app, door)(scope, None, send))
    assert bool(passed) != bool(sent)
    return 200 if passed else sent[0].get("status", sent[0].get("code"))


PUBLIC = public_door(frozenset({KEY}))


@pytest.mark.parametrize("path", sorted(FLEET))
def test_a_known_key_passes_to_what_parties_need(path):
    assert status(PUBLIC, "POST", path, SHOWN, LONG) == 200


@pytest.mark.parametrize(
    "path",
    [
        *sorted(REGISTER),
        "/v1/control/start-run",
        "/v1/control/list-runs",
        "/v1/runtime/acquire-task",
        "/v1/fleet/",
        "/v1/fleet/pull-messages/../../control/start-run",
        "/v1/fleet/pull-messages/",
        "/V1/FLEET/PULL-MESSAGES",
        "//v1/fleet/pull-messages",
        "/openapi.json",
        "/docs",
        "/",
    ],
)
def test_a_known_key_passes_to_nothing_else(path):
    assert status(PUBLIC, "POST", path, SHOWN, LONG) == 403
    assert status(PUBLIC, "GET", path, SHOWN, LONG) == 403


@pytest.mark.parametrize(
    "shown", [b"", b"not base64!", base64.b64encode(KEY + b"x"), base64.b64encode(b"other")]
)
def test_another_key_is_nobody(shown):
    assert (
        status(PUBLIC, "POST", "/v1/fleet/pull-messages", (b"flwr-public-key", shown), LONG) == 404
    )
    assert status(PUBLIC, "POST", "/v1/fleet/pull-messages", LONG) == 404


def test_a_request_says_how_long_it_is():
    path = "/v1/fleet/push-object"
    assert status(PUBLIC, "POST", path, SHOWN) == 411
    assert status(PUBLIC, "POST", path, SHOWN, (b"content-length", b"-1")) == 411
    assert status(PUBLIC, "POST", path, SHOWN, (b"content-length", b"67108864")) == 200
    assert status(PUBLIC, "POST", path, SHOWN, (b"content-length", b"67108865")) == 413


def test_everybody_may_ask_whether_it_is_well():
    assert status(PUBLIC, "GET", "/health") == 200
    assert status(PUBLIC, "POST", "/health", SHOWN, LONG) == 403


def test_there_are_no_websockets():
    assert status(PUBLIC, "GET", "/v1/fleet/pull-messages", SHOWN, kind="websocket") == 1008


def test_in_a_demonstration_parties_register_themselves_and_no_more():
    door = public_door(None)
    assert status(door, "POST", "/v1/fleet/register-node", LONG) == 200
    assert status(door, "POST", "/v1/fleet/pull-messages", LONG) == 200
    assert status(door, "POST", "/v1/control/start-run", LONG) == 403


def test_the_private_door_wants_its_secret_for_control():
    door, path = private_door("s3cret"), "/v1/control/start-run"
    knows = (b"x-consilience-secret", b"s3cret")
    assert status(door, "POST", path, knows) == 200
    assert status(door, "POST", path, (b"x-consilience-secret", b"s3cre")) == 403
    assert status(door, "POST", path) == 403
    assert status(door, "POST", "/v1/runtime/acquire-task") == 200
    assert (
        status(door, "POST", "/v1/fleet/pull-messages", (b"x-consilience-secret", b"s3cret")) == 403
    )
    assert status(door, "GET", "/docs", (b"x-consilience-secret", b"s3cret")) == 403
