"""Asking a server again: only what is safe to repeat, a few times, with growing pauses.

What is safe is the caller's word: reading is, and so is writing what may be written twice. Pauses
grow and are jittered, so that many readers of a server that comes back do not come at once.
"""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from consilience.retrieval.engines.base import Limits, UnavailableError

Result = TypeVar("Result")


def persistently(act: Callable[[], Result], limits: Limits) -> Result:
    """The result of `act`, tried again while it raises `UnavailableError`.

    Raises:
        UnavailableError: Every attempt failed; the last one's error.
    """
    for attempt in range(limits.attempts - 1):
        try:
            return act()
        except UnavailableError:
            time.sleep(limits.pause * 2**attempt * random.uniform(0.5, 1.5))
    return act()
