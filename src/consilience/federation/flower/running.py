"""What the command line calls: coordinate, join, and a simulation of both.

Who trains and what is asked is given from outside: a function of the `Parties`, and a `Party`.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from consilience.federation import places
from consilience.federation.config import FederationConfig, PartyConfig
from consilience.federation.contracts import Parties, Party
from consilience.federation.flower import checks, node
from consilience.federation.flower.agent import Agent

if TYPE_CHECKING:
    from consilience.federation.flower.link import Place

Result = TypeVar("Result")
Tell = Callable[[str], None]

_LOOK = 1.0  # seconds
_AGAIN = 5.0


def coordinate(
    config: FederationConfig, run: Callable[[Parties], Result], *, demo: bool = False
) -> Result:
    """Listen for parties, and run a federation with them.

    Args:
        config: `listen`, `keys` and `output` count here.
        run: The federation; what it returns is returned.
        demo: Without keys and encryption, on this machine only.

    Raises:
        ConsilienceError: It is not safe to start, or cannot; see `checks`.
    """
    from consilience.federation.flower.link import Place

    listen = checks.address(config.listen)
    with _linked(Place(config.output, listen, keys=config.keys, demo=demo)) as parties:
        return run(parties)


def join(
    config: PartyConfig,
    party: Party,
    *,
    demo: bool = False,
    over: Event | None = None,
    patience: float = 600.0,
    tell: Tell | None = None,
) -> None:
    """Take part in a federation until `over` is set.

    Args:
        config: `coordinator`, `keys` and `state` count here.
        party: Answers what the coordinator asks.
        demo: Without keys and encryption, on this machine only.
        over: Ends it; None never does.
        patience: Seconds that a coordinator may stay away at the beginning.
        tell: Told what happens, in a sentence.

    Raises:
        ConsilienceError: It is not safe to join, the coordinator is somebody else, or refuses.
    """
    over, tell = over or Event(), tell or _quiet
    checks.installed("flwr", "federation")
    place = checks.address(config.coordinator)
    checks.party_keys(config.keys, place, demo=demo)
    _await(place, config.keys, over, patience, tell)
    with Agent(party) as agent:
        seat = node.Seat(config.state, place, config.keys, agent.address)
        while not over.is_set():
            _stay(seat, over, tell)


def simulate_on_flower(
    config: FederationConfig,
    parties: Sequence[Party],
    run: Callable[[Parties], Result],
) -> Result:
    """Run a federation on Flower's simulation runtime, on this machine.

    Args:
        config: `output` counts here.
        parties: All of them, resident in this process.
        run: The federation; what it returns is returned.

    Raises:
        DependencyError: flwr or ray is missing.
    """
    from consilience.federation.flower.link import Place

    with ExitStack() as stack:
        agents = places.short_folder()
        stack.callback(places.gone, agents)
        for number, party in enumerate(parties):
            stack.enter_context(Agent(party, agents / str(number)))
        cores = max(1, min(len(parties), len(os.sched_getaffinity(0))))
        place = Place(config.output, None, agents=agents, simulated=len(parties), cores=cores)
        return run(stack.enter_context(_linked(place)))


def _quiet(_: str) -> None:
    """Tell nobody."""


@contextmanager
def _linked(place: "Place") -> Iterator[Parties]:
    checks.installed("flwr", "federation")
    from consilience.federation.flower.link import Link
    from consilience.federation.flower.parties import FlowerParties

    parties = FlowerParties(partial(Link, place))
    try:
        yield parties
    finally:
        parties.close()


def _await(
    place: checks.Address, folder: Path | None, over: Event, patience: float, tell: Tell
) -> None:
    """Wait for a coordinator that is not there yet; look at it closely when it is."""
    ends, told = monotonic() + patience, False
    while not over.is_set():
        try:
            checks.coordinator(place, folder)
            return
        except checks.UnreachableError as error:
            if monotonic() >= ends:
                raise
            if not told:
                tell(f"{error.message}; waiting")
            told = True
            over.wait(min(_AGAIN, max(0.0, ends - monotonic())))


def _stay(seat: node.Seat, over: Event, tell: Tell) -> None:
    """Run a node until it ends; one that was refused is not started again."""
    with node.running(seat) as running:
        tell(f"joined {seat.coordinator}")
        while running.alive and not over.wait(_LOOK):
            pass
        refusal = None if over.is_set() else running.refusal()
    if refusal is not None:
        raise refusal
    if not over.is_set():
        tell("the node ended; starting it again")
        over.wait(_AGAIN)
