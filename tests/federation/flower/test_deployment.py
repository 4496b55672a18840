"""The real SuperLink and SuperNodes on loopback: with TLS and keys, and killed in the middle."""

import base64
import http.client
import os
import signal
import ssl
import stat

import pytest
import torch

from consilience.errors import RemoteError
from consilience.federation import keys
from consilience.federation.combining import PlainGathering
from consilience.federation.flower import checks
from consilience.federation.flower.app.relay import client_app
from consilience.federation.flower.bundle import digest
from consilience.federation.local import LocalParties
from consilience.federation.rounds import Coordinator, Watch
from consilience.training.checkpoint import latest_checkpoint, read_checkpoint
from tests.federation.fakes import RECIPE, Pull, Start, config_of, party_of
from tests.federation.flower.deployed import (
    Joined,
    asked,
    free_port,
    joined,
    left_of,
    linked,
    until,
)

# Of a package that Flower packs apps with.
pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")

NAMES = ("north", "south", "west")


@pytest.fixture
def tidy(tmp_path):
    """Every process that a test started has ended with it."""
    yield
    until(lambda: not left_of(tmp_path), 30)


def answered(port, folder, method, path, headers=None, body=None):
    context = ssl.create_default_context(cafile=str(folder / keys.CA))
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=context)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        return connection.getresponse().status
    finally:
        connection.close()


def another_app():
    """Ours, with one more line at the party."""
    from importlib.resources import files

    from flwr.cli.build import build_fab_from_files
    from flwr.cli.utils import collect_files

    found = collect_files(files("consilience.federation.flower") / "app")
    path = "relay/client_app.py"
    content = (files("consilience.federation.flower") / "app" / path).read_bytes()
    return build_fab_from_files({**found, path: content + b"\nSTOLEN = True\n"})[0]


def test_three_parties_with_keys_and_nobody_else(tmp_path, tidy):
    folder, port = tmp_path / "keys", free_port()
    keys.make(folder, hosts=["127.0.0.1"], parties=NAMES)
    with linked(tmp_path / "run", port, folder) as (parties, link):
        with joined(tmp_path, port, NAMES, folder) as threads:
            until(lambda: list(parties.present()) == list(NAMES))
            body = os.urandom(6_000_000)
            found = asked(parties, NAMES, body)
            assert {n: r.body for n, r in found.items()} == {
                n: n.encode() + b": " + body for n in NAMES
            }
            strangers_are_refused(port, folder)
            an_unknown_key_is_refused(tmp_path, port, folder)
            another_app_is_refused(parties, link, threads)
        assert all(thread.error is None for thread in threads)
        assert stat.S_IMODE((tmp_path / "run" / "flower").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "run" / "flower" / "link.db").stat().st_mode) == 0o600


def strangers_are_refused(port, folder):
    for method, path in (
        ("POST", "/v1/control/list-runs"),
        ("POST", "/v1/control/start-run"),
        ("POST", "/v1/runtime/acquire-task"),
        ("POST", "/v1/runtime/pull-messages"),
        ("POST", "/v1/fleet/register-node"),
        ("POST", "/v1/fleet/../control/list-runs"),
        ("GET", "/openapi.json"),
        ("GET", "/docs"),
    ):
        assert answered(port, folder, method, path, body=b"") == 403, path
    assert answered(port, folder, "POST", "/v1/fleet/pull-messages", body=b"") == 404
    assert answered(port, folder, "GET", "/health") == 200
    known = base64.b64encode(keys.node_pem(keys.nodes(folder)["north"])).decode()
    forged = {"flwr-public-key": known, "flwr-signature": "AAAA", "timestamp": "2020"}
    forged |= {"content-type": "application/x-protobuf"}
    assert answered(port, folder, "POST", "/v1/fleet/activate-node", forged, b"") in (400, 401, 415)


def an_unknown_key_is_refused(tmp_path, port, folder):
    stranger = tmp_path / "stranger-keys"
    keys.make_party(stranger, "stranger")
    for name in (keys.CA, keys.ROSTER):
        (stranger / name).write_bytes((folder / name).read_bytes())
    thread = Joined(tmp_path, port, "stranger", stranger)
    thread.start()
    thread.join(90)
    thread.over.set()
    assert isinstance(thread.error, RemoteError)
    assert "does not accept the key of this party" in thread.error.message
    assert "keys accept" in thread.error.hint
    assert thread.party.requests == []


def another_app_is_refused(parties, link, threads):
    before = [len(thread.party.requests) for thread in threads]
    other = another_app()
    assert digest(other) != digest(link._bundle)
    assert client_app.app is not None
    link._bundle = other
    link._control.stop_all()
    parties._line.send({"kind": "stop"})
    until(lambda: parties._line is None)
    found = asked(parties, NAMES)
    assert all(reply.body is None for reply in found.values())
    assert all("could not be verified" in reply.error for reply in found.values())
    assert [len(thread.party.requests) for thread in threads] == before


def test_a_killed_link_is_started_again_and_the_run_goes_on_from_the_last_round(tmp_path, tidy):
    port, goals = free_port(), {"north": 0.0, "south": 1.0}
    central = run(tmp_path / "central", residents(tmp_path / "central", goals))
    resident = {party.name: party for party in residents(tmp_path / "there", goals)}
    with (
        linked(tmp_path / "link", port) as (parties, link),
        joined(tmp_path, port, goals, parties=resident) as threads,
    ):
        first = link.processes
        lines = []

        def killed(line):
            lines.append(line.round)
            if line.round == 1:
                os.kill(first[0], signal.SIGKILL)

        found = run(tmp_path / "there", parties, Watch(line=killed))
    assert set(link.processes).isdisjoint(first)
    assert lines == [1, 2]
    assert all(thread.error is None for thread in threads)
    assert [line.round for line in found.rounds] == [1, 2]
    assert found.without_model == {}
    assert len(central.rounds) == 2
    one, other = (weights(tmp_path / name) for name in ("central", "there"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def residents(folder, goals):
    return [party_of(folder, name, Pull(goal)) for name, goal in goals.items()]


def run(folder, parties, watch=None):
    values = {"rounds": 2, "expected": 2, "deadline": 150, "grace": 5, "seed": 3}
    config = config_of(folder, **values)
    way = LocalParties(parties) if isinstance(parties, list) else parties
    gathering = PlainGathering(config)
    return Coordinator(
        config, RECIPE, parties=way, model=Start(), gathering=gathering, watch=watch
    ).run()


def weights(folder):
    return dict(read_checkpoint(latest_checkpoint(folder / "run")).weights)


def test_a_coordinator_without_keys_does_not_start(tmp_path):
    from consilience.errors import UsageError

    with pytest.raises(UsageError, match="no keys are given") as caught:
        checks.server_keys(None, checks.Address("127.0.0.1", 1), demo=False)
    assert "federate keys make" in caught.value.hint
