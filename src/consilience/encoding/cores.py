"""Work in pieces, each on a core of its own.

OpenMP shares one product after another between the cores and lets them meet again after each. With
threads that wait passively (see `docs/decisions/0013-threads-wait-passively.md`) that costs as much
as it gains until a product has a thousand rows. Pieces that never meet, a text or a question each,
keep every core at its full rate from some dozens of rows on; see
`docs/decisions/0027-one-core-a-piece.md`.

A thread that was told to use one core stays on it: there nothing is spread. torch is imported only
where it is at work anyway.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

from threadpoolctl import ThreadpoolController

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """How many threads torch would use for a product of the calling thread."""
    import torch

    return torch.get_num_threads()


@contextmanager
def one_core() -> Iterator[None]:
    """The products of the calling thread stay on its core; other threads keep theirs."""
    with _openmp().limit(limits=1):
        yield


def on_all_cores(work: Callable[[T], R], pieces: Sequence[T]) -> list[R]:
    """What `work` makes of each piece, in their order; they are begun in their order too.

    Inference mode is that of the caller. Gradients are for callers that stay on one thread.

    Raises:
        Exception: What `work` raises for the first piece that fails, once all have ended.
    """
    if len(pieces) < 2 or cores() < 2:
        return [work(piece) for piece in pieces]
    import torch

    inferring = torch.is_inference_mode_enabled()

    def alone(piece: T) -> R:
        with one_core(), torch.inference_mode(inferring):
            return work(piece)

    try:
        futures = [_pool(cores()).submit(alone, piece) for piece in pieces]
    except RuntimeError:  # the interpreter is ending and takes no more work for its threads
        return [work(piece) for piece in pieces]
    for future in futures:
        future.exception()  # waits: nobody goes on while a piece still works on what it was given
    return [future.result() for future in futures]


def shares(rows: "Tensor") -> list[slice]:
    """Rows as equal shares for the cores, one of all where nothing is to be spread.

    Nothing is spread on other devices, nor where gradients may be wanted: those are computed by one
    thread, in one way.

    Args:
        rows: Anything of a row each, `[rows, ...]`.
    """
    import torch

    apart = rows.device.type == "cpu" and torch.is_inference_mode_enabled()
    count, size = min(cores(), len(rows)) if apart else 1, len(rows)
    if count < 2:
        return [slice(0, size)]
    edges = [size * part // count for part in range(count + 1)]
    return [slice(*edge) for edge in pairwise(edges)]


@cache
def _openmp() -> ThreadpoolController:
    """OpenMP as torch loaded it."""
    return ThreadpoolController().select(user_api="openmp")


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="core")


# A child process has none of its parent's threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
