"""Keeping small work on one core.

OpenMP shares every product between the cores and lets them meet again after it. For some dozens of
rows that costs more than it gains, with threads that wait passively above all; see
`docs/decisions/0027-questions-asked-meanwhile.md`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController


@contextmanager
def one_core() -> Iterator[None]:
    """The products of the calling thread stay on its core; other threads keep theirs."""
    with _openmp().limit(limits=1):
        yield


@cache
def _openmp() -> ThreadpoolController:
    """OpenMP as torch loaded it."""
    return ThreadpoolController().select(user_api="openmp")
