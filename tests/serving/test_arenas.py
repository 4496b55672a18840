"""Threads of a server share what the C library keeps for them."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from consilience.serving import arenas

COUNT = """
import ctypes, sys, threading
from consilience.serving.arenas import share_arenas
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
    assert arenas.share_arenas() is False
