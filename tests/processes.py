"""Processes that a test can only watch, having started them through another."""

import time
from pathlib import Path


def require_end(process: int) -> None:
    """Wait until a process is over, and fail when it goes on for ten seconds."""
    for _ in range(200):
        if is_over(process):
            return
        time.sleep(0.05)
    raise AssertionError(f"process {process} goes on")


def is_over(process: int) -> bool:
    """Whether a process is gone, or only waited for."""
    try:
        state = Path(f"/proc/{process}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"
