"""Threads of a server share what the C library keeps for them, and give back what is free."""

import ctypes
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from consilience.serving import memory

THREAD = "giving-memory-back"
COUNT = """
import ctypes, sys, threading
from consilience.serving.memory import share_arenas
if sys.argv[2] == "share":
    assert share_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
together = threading.Barrier(12)
def work():
    together.wait()
    for _ in range(1000):
        libc.malloc(ctypes.c_size_t(100))
    together.wait()
threads = [threading.Thread(target=work) for _ in range(12)]
for one in threads: one.start()
for one in threads: one.join()
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


def heaps(path: Path, how: str) -> int:
    """Arenas of a process whose twelve threads allocate at the same time."""
    subprocess.run([sys.executable, "-c", COUNT, str(path), how], check=True, timeout=60)
    return path.read_text(encoding="utf-8").count("<heap nr=")


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_info"), reason="the C library is not glibc"
)
def test_threads_share_two_arenas(tmp_path: Path) -> None:
    assert heaps(tmp_path / "alone.xml", "alone") > 2
    assert heaps(tmp_path / "shared.xml", "share") <= 2


def test_elsewhere_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    assert memory.share_arenas() is False
    with memory.giving_back():
        assert not giving()


FREED = """
import ctypes, resource, sys, time
from contextlib import nullcontext
from consilience.serving.memory import giving_back
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
with giving_back(every=0.05) if sys.argv[1] == "give" else nullcontext():
    taken = [libc.malloc(ctypes.c_size_t(60_000)) for _ in range(2_000)]
    for one in taken: ctypes.memset(one, 1, 60_000)
    high = resident()
    for one in taken[:-1]: libc.free(one)  # the last one holds the top of the heap
    until = time.monotonic() + 2
    while time.monotonic() < until and resident() > high - 60: time.sleep(0.05)
print(high - resident())
"""


def given_back(how: str) -> float:
    """Megabytes of 114 freed ones that a process gives back within two seconds."""
    command = [sys.executable, "-c", FREED, how]
    done = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)
    return float(done.stdout)


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc"
)
def test_what_is_free_is_given_back() -> None:
    assert given_back("keep") < 20
    assert given_back("give") > 60


def giving() -> bool:
    """Whether a thread gives memory back."""
    return any(one.name == THREAD for one in threading.enumerate())


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc"
)
def test_it_ends_with_what_it_is_for() -> None:
    with memory.giving_back():
        assert giving()
    assert not giving()
