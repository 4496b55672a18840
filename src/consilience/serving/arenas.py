"""How a long-lived process with many threads takes memory.

glibc gives every thread that allocates an arena of its own, up to eight for each core, and what one
thread frees another cannot take: a server grows for hours without holding anything. With two arenas
it does not, and the interpreter's lock leaves threads little to quarrel about there.
"""

import ctypes
import sys

_ARENAS = 2
_M_ARENA_MAX = -8  # of malloc.h


def share_arenas() -> bool:
    """Have all threads that begin from here on share two arenas; whether the C library can."""
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and bool(mallopt(_M_ARENA_MAX, _ARENAS))
