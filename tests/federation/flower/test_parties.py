"""`FlowerParties` over the real relay and the real ClientApp, without a network."""

from contextlib import ExitStack
from functools import partial

import pytest

from consilience.errors import RemoteError
from consilience.federation.contracts import Wait
from consilience.federation.flower.agent import Agent
from consilience.federation.flower.app.relay.frames import connect, receive, send
from consilience.federation.flower.parties import FlowerParties
from tests.federation.flower.direct import DirectEngine, DirectGrid
from tests.federation.flower.fakes import Echo

NAMES = ("north", "south", "west")


class World:
    """Three parties, their agents, a grid between, and the coordinator's side."""

    def __init__(self, stack, known=True):
        self.echoes = {name: Echo(name) for name in NAMES}
        self.agents = {n: stack.enter_context(Agent(echo)) for n, echo in self.echoes.items()}
        self.nodes = {
            100 + i: {"agent": str(self.agents[name].address)} for i, name in enumerate(NAMES)
        }
        self.grid = DirectGrid(self.nodes)
        pinned = {100 + i: name for i, name in enumerate(NAMES)} if known else {}
        self.parties = FlowerParties(partial(self.engine, known=pinned))
        stack.callback(self.parties.close)
        stack.callback(self.free)

    def engine(self, desk, known):
        self.made = DirectEngine(desk, self.grid, known)
        return self.made

    def free(self):
        for echo in self.echoes.values():
            echo.free.set()

    def settled(self, count=3):
        with self.parties._state:
            assert self.parties._state.wait_for(
                lambda: len(self.parties._nodes) and len(self.parties._names) >= count, 20
            )
        return self.parties.present()


@pytest.fixture
def world():
    with ExitStack() as stack:
        yield World(stack)


def answers(replies):
    return {reply.party: reply.body for reply in replies}


def test_each_party_gets_its_own_request(world):
    assert world.settled() == list(NAMES)
    requests = {name: f"to {name}".encode() for name in NAMES}
    found = answers(world.parties.ask(requests, Wait(3, 0, 30)))
    assert found == {name: f"{name}: to {name}".encode() for name in NAMES}


def test_nodes_are_asked_who_they_are_where_no_keys_say_it():
    with ExitStack() as stack:
        world = World(stack, known=False)
        assert world.settled() == list(NAMES)
        assert all(not echo.requests for echo in world.echoes.values())


def test_a_body_of_30_mb_travels_both_ways(world):
    body = bytes(range(256)) * (30 * 4096)
    assert len(body) > 30_000_000
    found = answers(world.parties.ask({"north": body, "south": body}, Wait(2, 0, 60)))
    assert found["north"] == b"north: " + body
    assert found["south"] == b"south: " + body


def test_with_a_quorum_the_late_get_their_grace_and_no_more(world):
    world.echoes["west"].free.clear()
    replies = list(world.parties.ask(dict.fromkeys(NAMES, b"x"), Wait(2, 0.3, 60)))
    assert [reply.party for reply in replies][-1] == "west"
    assert replies[-1].body is None
    assert replies[-1].error.startswith("no reply within")
    assert sum(reply.body is not None for reply in replies) == 2


def test_within_the_grace_the_late_still_count(world):
    world.echoes["west"].free.clear()
    replies = iter(world.parties.ask(dict.fromkeys(NAMES, b"x"), Wait(2, 30, 60)))
    assert {next(replies).party, next(replies).party} == {"north", "south"}
    world.echoes["west"].free.set()
    assert next(replies).body == b"west: x"


def test_at_the_deadline_nobody_is_waited_for(world):
    for echo in world.echoes.values():
        echo.free.clear()
    replies = list(world.parties.ask(dict.fromkeys(NAMES, b"x"), Wait(3, 30, 1.0)))
    assert sorted(reply.party for reply in replies) == list(NAMES)
    assert all(reply.body is None for reply in replies)


def test_messages_end_with_the_deadline(world):
    list(world.parties.ask({"north": b"x"}, Wait(1, 0, 40)))
    assert 0 < world.grid.pushed[-1].metadata.ttl <= 40


def test_an_agent_that_is_gone_is_named_at_once(world):
    world.settled()
    world.agents["south"].close()
    replies = {r.party: r for r in world.parties.ask(dict.fromkeys(NAMES, b"x"), Wait(3, 0, 60))}
    assert replies["south"].body is None
    assert "the agent of the party does not answer: No such file" in replies["south"].error
    assert replies["north"].body == b"north: x"


def test_a_reply_of_another_party_is_no_reply(world):
    world.grid.nodes[100] = world.nodes[101]  # north's key, south's agent
    (reply,) = world.parties.ask({"north": b"x"}, Wait(1, 0, 30))
    assert reply.body is None
    assert reply.error == "its node answers for 'south'"


def test_a_relay_that_dies_is_started_again_and_the_request_sent_again(world):
    world.settled()
    world.echoes["north"].free.clear()
    replies = iter(world.parties.ask({"north": b"x"}, Wait(1, 0, 60)))
    world.made.cut.set()
    with world.parties._state:
        assert world.parties._state.wait_for(lambda: world.made.begun == 2, 20)
    world.echoes["north"].free.set()
    assert next(replies).body == b"north: x"
    assert world.echoes["north"].requests[-1] == b"x"


def test_a_party_that_comes_later_is_asked_when_it_comes(world):
    late = world.grid.nodes.pop(102)
    world.parties.present()
    replies = iter(world.parties.ask({"west": b"x"}, Wait(1, 0, 60)))
    world.grid.nodes[102] = late
    assert next(replies).body == b"west: x"


def test_an_engine_that_cannot_run_is_told_to_whoever_asks():
    class Broken(DirectEngine):
        def tend(self, *, connected):
            raise RemoteError("the link ended five times", hint="see link.log")

    parties = FlowerParties(lambda desk: Broken(desk, DirectGrid({})))
    with pytest.raises(RemoteError, match="the link ended five times"):
        parties.present()
    with pytest.raises(RemoteError, match="the link ended five times"):
        list(parties.ask({"north": b"x"}, Wait(1, 0, 5)))
    parties.close()


def test_a_stranger_at_the_desk_is_sent_away(world):
    world.settled()
    connection, _ = connect(world.made.desk, 5)
    with connection:
        send(connection, {"kind": "hello", "secret": "guess", "run": 1})
        assert receive(connection) is None
    assert answers(world.parties.ask({"north": b"x"}, Wait(1, 0, 30))) == {"north": b"north: x"}
    assert world.made.begun == 1


def test_closed_parties_say_so(world):
    world.settled()
    world.parties.close()
    with pytest.raises(RemoteError, match="closed"):
        world.parties.present()
    world.parties.close()
