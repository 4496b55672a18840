import socket
import stat
import struct

import pytest

from consilience.errors import BusyError
from consilience.federation.flower.agent import Agent
from consilience.federation.flower.app.relay.frames import BrokenFrameError, connect, receive, send
from tests.federation.flower.fakes import Echo


def asked(agent, body, kind="answer", secret=None):
    connection, known = connect(agent.address, 5)
    with connection:
        send(connection, {"secret": known if secret is None else secret, "kind": kind}, body)
        return receive(connection)


@pytest.fixture
def echo():
    return Echo("north")


@pytest.fixture
def agent(echo, tmp_path):
    with Agent(echo, tmp_path / "a") as agent:
        yield agent


def test_a_request_gets_its_answer_and_the_name(agent):
    assert asked(agent, b"hello") == ({"party": "north"}, b"north: hello")


def test_who_is_answered_without_the_party(agent, echo):
    assert asked(agent, b"", kind="who") == ({"party": "north"}, b"")
    assert echo.requests == []


def test_large_bodies_pass_whole(agent):
    body = bytes(range(256)) * 40_000
    assert asked(agent, body)[1] == b"north: " + body


def test_a_wrong_secret_is_refused_and_the_party_not_asked(agent, echo):
    head, body = asked(agent, b"hello", secret="0" * 64)
    assert head == {"refused": "a caller that does not know the secret"}
    assert body == b""
    assert echo.requests == []


def test_only_the_owner_can_reach_it(agent):
    assert stat.S_IMODE(agent.address.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(agent.address.stat().st_mode) == 0o600
    assert stat.S_IMODE(agent.address.with_suffix(".secret").stat().st_mode) == 0o600


def test_it_survives_callers_that_vanish(agent, echo):
    echo.free.clear()
    connection, secret = connect(agent.address, 5)
    send(connection, {"secret": secret, "kind": "answer"}, b"gone")
    connection.close()
    half, secret = connect(agent.address, 5)
    half.sendall(struct.pack(">IQ", 10, 10))
    half.close()
    echo.free.set()
    assert asked(agent, b"still here")[1] == b"north: still here"
    assert echo.requests == [b"gone", b"still here"]


def test_a_request_that_is_too_long_is_not_read(tmp_path):
    echo = Echo("north")
    with Agent(echo, tmp_path / "a", most=10) as agent:
        with pytest.raises((BrokenFrameError, ConnectionError)) as caught:
            asked(agent, b"x" * 1_000_000) or (_ for _ in ()).throw(BrokenFrameError("closed"))
        assert caught.value
        assert asked(agent, b"short")[1] == b"north: short"
    assert echo.requests == [b"short"]


def test_a_head_that_is_no_table_is_dropped(agent):
    connection, _ = connect(agent.address, 5)
    with connection:
        connection.sendall(struct.pack(">IQ", 2, 0) + b"[]")
        assert receive(connection) is None
    assert asked(agent, b"on")[1] == b"north: on"


def test_a_party_that_raises_does_not_end_the_agent(tmp_path, capsys):
    def change(request):
        if request == b"bad":
            raise ValueError("the secret number is 4711")
        return request

    with Agent(Echo("north", change), tmp_path / "a") as agent:
        head, _ = asked(agent, b"bad")
        assert head == {"refused": "ValueError while answering"}
        assert asked(agent, b"good")[1] == b"good"
    assert "4711" in capsys.readouterr().err


def test_two_agents_cannot_share_a_socket(agent, tmp_path):
    with pytest.raises(BusyError, match="cannot be listened on") as caught:
        Agent(Echo("other"), tmp_path / "a")
    assert caught.value.hint == "is the same party or coordinator running already?"


def test_nothing_is_left_of_it():
    with Agent(Echo("north")) as agent:
        folder = agent.address.parent
        assert folder.is_dir()
    assert not folder.exists()
    with pytest.raises(OSError, match="No such file"):
        connect(agent.address, 1)
    with socket.socket(socket.AF_UNIX) as probe, pytest.raises(OSError, match="No such file"):
        probe.connect(str(agent.address))
