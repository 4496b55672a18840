"""Parties in this process: the engine of `simulate` and of tests.

Bytes pass between coordinator and parties here as over a network, so that nothing is shared by
accident. One after the other, each party has the machine and torch's random numbers to itself, and
is given the time that it would have had beside the others; at once, each has a thread of its own.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from time import monotonic

from consilience.errors import UsageError
from consilience.federation.contracts import Party, Reply, Wait


class LocalParties:
    """Every party in this process.

    Args:
        parties: Each of another name.
        at_once: Whether they answer side by side; only for parties that draw no random numbers from
            torch's global state.

    Raises:
        UsageError: Two have the same name.
    """

    def __init__(self, parties: Sequence[Party], *, at_once: bool = False) -> None:
        self._parties = {party.name: party for party in parties}
        self._at_once = at_once
        if len(self._parties) < len(parties):
            names = sorted(party.name for party in parties)
            raise UsageError(
                f"two parties have the same name: {', '.join(names)}",
                hint="give each party file a name of its own",
            )
        # A thread for each, so that one that is late holds up nobody but itself.
        self._threads = {name: ThreadPoolExecutor(1) for name in self._parties}

    def present(self) -> Sequence[str]:
        """All of them."""
        return sorted(self._parties)

    def ask(self, requests: Mapping[str, bytes], wait: Wait) -> Iterable[Reply]:
        """Send each party its request and give replies as they come, until `wait` is over."""
        known = {name: body for name, body in requests.items() if name in self._parties}
        for name in requests.keys() - known.keys():
            yield Reply(name, None, "there is no such party")
        yield from (self._side_by_side if self._at_once else self._in_turn)(known, wait)

    def close(self) -> None:
        """Let the threads go; one that still answers is not waited for."""
        for thread in self._threads.values():
            thread.shutdown(wait=False, cancel_futures=True)

    def _begin(self, name: str, body: bytes) -> "Future[bytes]":
        return self._threads[name].submit(self._parties[name].answer, body)

    def _side_by_side(self, requests: Mapping[str, bytes], rule: Wait) -> Iterator[Reply]:
        begun = monotonic()
        open_ = {self._begin(name, body): name for name, body in requests.items()}
        ends, answered = begun + rule.deadline, 0
        while open_ and (left := ends - monotonic()) > 0:
            done, _ = wait(open_, timeout=left, return_when=FIRST_COMPLETED)
            for future in done:
                yield Reply(open_.pop(future), future.result(), "", monotonic() - begun)
            answered += len(done)
            if answered >= rule.quorum:
                ends = min(ends, monotonic() + rule.grace)
        for future, name in open_.items():
            future.cancel()
            yield _late(name, monotonic() - begun)

    def _in_turn(self, requests: Mapping[str, bytes], rule: Wait) -> Iterator[Reply]:
        """Each alone; whoever took longer than the rule allows beside the others is late."""
        replies = [self._alone(name, body, rule.deadline) for name, body in requests.items()]
        times = sorted(reply.seconds for reply in replies if reply.body is not None)
        ends = rule.deadline
        if len(times) >= rule.quorum:
            ends = min(ends, times[max(rule.quorum, 1) - 1] + rule.grace)
        for reply in sorted(replies, key=lambda reply: (reply.body is None, reply.seconds)):
            yield reply if reply.seconds <= ends else _late(reply.party, reply.seconds)

    def _alone(self, name: str, body: bytes, deadline: float) -> Reply:
        begun, future = monotonic(), self._begin(name, body)
        wait([future], timeout=deadline)
        if not future.done():
            future.cancel()
            return _late(name, monotonic() - begun)
        return Reply(name, future.result(), "", monotonic() - begun)


def _late(name: str, seconds: float) -> Reply:
    return Reply(name, None, f"no reply within {seconds:.0f} s", seconds)
