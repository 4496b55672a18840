"""Child processes for tests: forked from a clean server, so that no test's threads come along."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["pytest", "faiss", "consilience.retrieval", "tests.store.test_crash"]
)


def start(target: Callable[..., object], *args: object) -> ForkServerProcess:
    process = CONTEXT.Process(target=target, args=args)
    process.start()
    return process


def run(target: Callable[..., object], *args: object) -> int | None:
    """The exit code of a call in a child process; negative for a signal."""
    process = start(target, *args)
    process.join()
    return process.exitcode
