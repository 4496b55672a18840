"""A coordinator's link and parties that join it, as threads and child processes of a test."""

import os
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import monotonic, sleep

from consilience.errors import ConsilienceError
from consilience.federation.config import PartyConfig
from consilience.federation.contracts import Wait
from consilience.federation.flower import checks
from consilience.federation.flower.link import Link, Place
from consilience.federation.flower.parties import FlowerParties
from consilience.federation.flower.running import join
from tests.federation.flower.fakes import Echo


def free_port():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


class Joined(threading.Thread):
    """A party that has joined, or the error with which it did not."""

    def __init__(self, folder, port, name, keys=None, party=None):
        super().__init__(daemon=True)
        self.config = PartyConfig(
            name=name, state=folder / name, coordinator=f"127.0.0.1:{port}", keys=keys
        )
        self.party = party or Echo(name)
        self.over = threading.Event()
        self.error = None
        self.told = []

    def run(self):
        try:
            join(
                self.config,
                self.party,
                demo=self.config.keys is None,
                over=self.over,
                patience=60,
                tell=self.told.append,
            )
        except ConsilienceError as error:
            self.error = error


@contextmanager
def linked(state: Path, port: int, keys=None):
    """`FlowerParties` over a link; yields both."""
    links = []

    def engine(place, desk):
        links.append(Link(place, desk))
        return links[0]

    place = Place(state, checks.Address("127.0.0.1", port), keys=keys, demo=keys is None)
    parties = FlowerParties(partial(engine, place))
    try:
        yield parties, links[0]
    finally:
        parties.close()


@contextmanager
def joined(folder, port, names, keys=None, parties=None):
    threads = [
        Joined(folder, port, n, keys and keys / "parties" / n, (parties or {}).get(n))
        for n in names
    ]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for thread in threads:
            thread.over.set()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)


def until(true, seconds=150):
    """Wait for something, in real time; the thing itself is asserted."""
    ends = monotonic() + seconds
    while not true():
        assert monotonic() < ends, "it did not happen"
        sleep(0.1)


def asked(parties, names, body=b"x", deadline=150, quorum=None):
    wait = Wait(quorum or len(names), 5, deadline)
    return {reply.party: reply for reply in parties.ask(dict.fromkeys(names, body), wait)}


def left_of(folder: Path) -> list[str]:
    """Processes that still run with this folder as Flower's own; zombies do not count."""
    wanted, found = f"FLWR_HOME={folder}".encode(), []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (entry / "environ").read_bytes() and int(entry.name) != os.getpid():
                found.append((entry / "cmdline").read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return found
