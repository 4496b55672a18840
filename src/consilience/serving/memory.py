"""How a long-lived process with many threads takes memory, and gives it back.

glibc gives every thread that allocates an arena of its own, up to eight for each core, and what one
thread frees another cannot take: a server grows for hours without holding anything. With two arenas
it does not, and the interpreter's lock leaves threads little to quarrel about there.

What is free within an arena stays with the process until somebody asks for it. Answers need tensors
of many sizes, and leave as much free between them as they hold; see
`docs/decisions/0032-memory-is-given-back.md`.
"""

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

EVERY = 10.0
"""Seconds between two times that free memory is given back; it takes some 10 ms."""

_ARENAS = 2
_M_ARENA_MAX = -8  # of malloc.h


def share_arenas() -> bool:
    """Have all threads that begin from here on share two arenas; whether the C library can."""
    mallopt = _of_c("mallopt")
    return mallopt is not None and bool(mallopt(_M_ARENA_MAX, _ARENAS))


@contextmanager
def giving_back(every: float = EVERY) -> Iterator[None]:
    """Meanwhile, give free memory back to the system every so many seconds; where C can."""
    trim, over = _of_c("malloc_trim"), threading.Event()
    if trim is None:
        yield
        return

    def work() -> None:
        while not over.wait(every):
            trim(0)

    thread = threading.Thread(target=work, name="giving-memory-back", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _of_c(name: str) -> Any:
    """A function of the C library; None where there is none of this name, as in musl."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
