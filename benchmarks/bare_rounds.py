"""What a federation costs beside its training: rounds of parties that learn nothing.

Three engines are measured: *local*, all parties in this process; *ray*, Flower's simulation
runtime; *deployment*, a SuperLink and SuperNodes on loopback without TLS.
"""

import os
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import numpy as np
import torch
from torch import Tensor

from consilience.federation.combining import PlainGathering
from consilience.federation.config import FederationConfig, PartyConfig
from consilience.federation.contracts import Gathering, Orders, Parties, Sealing, Update
from consilience.federation.flower import coordinate, join, simulate_on_flower
from consilience.federation.local import LocalParties
from consilience.federation.party import ResidentParty
from consilience.federation.payload import PlainSealing
from consilience.federation.rounds import Coordinator, Federated, Watch
from consilience.federation.secure import (
    PartyKey,
    Roster,
    SecureGathering,
    SecureSealing,
    new_party_key,
)
from consilience.federation.terms import Limits
from consilience.training.settings import parse_settings

SIMULATED = ("local", "ray")
ENGINES = (*SIMULATED, "deployment")


@dataclass(frozen=True, slots=True)
class BareRounds:
    """Rounds in which nothing is learned, so that what is left is the way.

    Attributes:
        parties: How many.
        secure: Whether sums are secret.
        weights: That travel.
        seconds: Of each round, the first included.
        processor: Seconds of the processor in the warm rounds, each, of all processes.
        load: Of the machine when it ended, over its cores.
        engine: One of `ENGINES`.
    """

    parties: int
    secure: bool
    weights: int
    seconds: Sequence[float]
    processor: float
    load: float
    engine: str = "deployment"

    @property
    def warm(self) -> float:
        """The median round but the first."""
        return float(np.median(self.seconds[1:]))


@dataclass
class Idle:
    """A trainee that learns nothing at once."""

    weights: int

    def describe(self) -> tuple[str, str]:
        """Nothing."""
        return "model", "words"

    def shared(self) -> dict[str, Tensor]:
        """As many numbers as adapters have."""
        return {"adapter": torch.zeros(self.weights)}

    def moving(self, number: int) -> tuple[str, ...]:  # noqa: ARG002
        """All of them."""
        return ("adapter",)

    def fit(self, orders: Orders, weights: Mapping[str, Tensor]) -> Update:
        """A small change, drawn from the round."""
        drawn = torch.Generator().manual_seed(orders.round)
        delta = torch.randn(weights["adapter"].shape, generator=drawn) / 1000
        return Update({"adapter": delta}, 100.0, {"loss": 1.0})

    def keep(self, weights: Mapping[str, Tensor]) -> str:  # noqa: ARG002
        """Nowhere."""
        return ""


def bare_rounds(engine: str, count: int, rounds: int, *, secure: bool, weights: int) -> BareRounds:
    """Run rounds of so many parties; in a deployment each has processes of its own."""
    used: list[float] = []
    watch = Watch(line=lambda _: used.append(processor()))
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        config = loopback(Path(place), count, rounds, secure=secure)
        parties = idle_parties(Path(place), count, weights)

        def run(way: Parties) -> Federated:
            gathering: Gathering = PlainGathering(config)
            if secure:
                gathering = SecureGathering(config.secure)
            model = Idle(weights)
            return Coordinator(
                config, {}, parties=way, model=model, gathering=gathering, watch=watch
            ).run()

        if engine == "local":
            way = LocalParties(parties)
            stack.callback(way.close)
            found = run(way)
        elif engine == "ray":
            found = simulate_on_flower(config, parties, run)
        else:
            for party in parties:
                stack.enter_context(joined(config, party, Path(place)))
            found = coordinate(config, run, demo=True)
    seconds = [line.seconds for line in found.rounds]
    each = (used[-1] - used[0]) / (len(used) - 1)
    load = os.getloadavg()[0] / len(os.sched_getaffinity(0))
    return BareRounds(count, secure, weights, seconds, each, load, engine)


def idle_parties(place: Path, count: int, weights: int) -> list[ResidentParty]:
    """Parties that learn nothing, with keys."""
    keys = {f"party-{number}": new_party_key() for number in range(count)}
    roster = Roster({name: key.public for name, key in keys.items()})

    def resident_of(name: str, key: PartyKey) -> ResidentParty:
        def seal(config: FederationConfig, folder: Path) -> Sealing:
            if config.secure.sums:
                return SecureSealing(name, key, roster, folder, config.secure)
            return PlainSealing("float32", folder)

        state = place / name
        return ResidentParty(name, lambda _, __: Idle(weights), seal, state=state, limits=Limits())

    return [resident_of(name, key) for name, key in keys.items()]


@contextmanager
def joined(config: FederationConfig, party: ResidentParty, place: Path) -> Iterator[None]:
    """A party that takes part from a thread, until it is let go."""
    over = Event()
    own = PartyConfig(party.name, place / party.name, coordinator=config.listen)
    told = {"demo": True, "over": over}
    thread = Thread(target=join, args=(own, party), kwargs=told, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(60)


def loopback(place: Path, count: int, rounds: int, *, secure: bool) -> FederationConfig:
    """The settings of a federation on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = {
        "output": str(place / "run"),
        "recipe": "recipe.yaml",
        "rounds": rounds,
        "expected": count,
        "deadline": 300,
        "grace": 5,
        "listen": f"127.0.0.1:{port}",
        "secure": {"sums": secure},
    }
    return parse_settings(FederationConfig, settings, source="benchmark", verb="federate")


def processor() -> float:
    """Seconds of the processor that this process and all that it started have used."""
    parents, used = {}, {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        parents[int(entry.parent.name)] = int(fields[1])
        used[int(entry.parent.name)] = sum(map(int, fields[11:15]))
    mine = {os.getpid()}
    while more := {one for one, parent in parents.items() if parent in mine} - mine:
        mine |= more
    return sum(used[one] for one in mine) / os.sysconf("SC_CLK_TCK")


def rounds_lines(found: Sequence[BareRounds]) -> Iterator[str]:
    """What the way costs, as a table."""
    yield from ("## The way", "")
    yield (
        "`--simulation`, `--deployment`: parties that learn nothing, so that what is left is the "
        "way: *local* has all of them in one process, *ray* is Flower's simulation runtime, and "
        "*deployment* SuperLink and SuperNodes on loopback, without TLS. Warm rounds are all but "
        "the first, load is runnable processes for each core when a run ended: above 1 seconds say "
        "more of the machine than of the program."
    )
    titles = "engine", "parties", "sums", "numbers", "warm rounds", "s a warm round"
    yield from ("", f"| {' | '.join(titles)} | s of the processor | load |")
    yield "|---|---|---|---|---|---|---|---|"
    for one in sorted(found, key=lambda one: (ENGINES.index(one.engine), one.parties, one.secure)):
        cells = [
            one.engine,
            str(one.parties),
            "secure" if one.secure else "plain",
            f"{one.weights:,}",
            str(len(one.seconds) - 1),
            f"{one.warm:.2f}",
            f"{one.processor:.2f}",
            f"{one.load:.1f}",
        ]
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield from _against_plain([one for one in found if one.engine == "deployment"])


def _against_plain(found: Sequence[BareRounds]) -> Iterator[str]:
    by = {(one.parties, one.secure): one for one in found}
    for count in sorted({one.parties for one in found}):
        if (count, True) in by and (count, False) in by:
            ratio = by[count, True].warm / by[count, False].warm
            yield (
                f"With {count} parties a secure round of a deployment takes {ratio:.1f} times a "
                "plain one."
            )
