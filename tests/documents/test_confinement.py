"""What a confined process can no longer do; each attempt is made in a process of its own."""

import subprocess
import sys

import pytest

SETUP = """
import os, socket, subprocess, sys
from consilience.documents.confinement import confine, grant_cpu, peak_memory
confine(256 * 1024 * 1024)
"""


def _attempt(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SETUP + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("code", "event"),
    [
        ("socket.socket()", "socket.__new__"),
        ("socket.create_connection(('127.0.0.1', 9))", "socket."),
        ("subprocess.run(['true'])", "subprocess.Popen"),
        ("os.system('true')", "os.system"),
        ("os.fork()", "os.fork"),
        ("open('x', 'w')", "open"),
        ("os.open('x', os.O_CREAT)", "open"),
        ("os.remove('x')", "os.remove"),
        ("os.execv(sys.executable, ['python'])", "os.exec"),
    ],
)
def test_network_processes_and_writing_are_refused(code: str, event: str) -> None:
    outcome = _attempt(code)
    assert outcome.returncode == 1
    last = outcome.stderr.strip().splitlines()[-1]
    assert last.startswith("PermissionError: a document reader may not ")
    assert event in last


def test_reading_and_importing_go_on() -> None:
    outcome = _attempt("import decimal; print(open(os.devnull).read() == '', peak_memory() > 0)")
    assert (outcome.stdout, outcome.stderr) == ("True True\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems limit memory differently")
def test_memory_ends_where_it_should() -> None:
    outcome = _attempt("held = bytearray(300 * 1024 * 1024)")
    assert outcome.stderr.strip().splitlines()[-1] == "MemoryError"


LEAVE = """
import ctypes
unshare = ctypes.CDLL(None).unshare
print(unshare(0x40000000) == 0 or unshare(0x50000000) == 0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")
def test_no_interface_but_a_dead_loopback_is_left() -> None:
    allowed = subprocess.run([sys.executable, "-c", LEAVE], capture_output=True, check=True)
    if allowed.stdout != b"True\n":
        pytest.skip("this system lets nobody leave its network")
    outcome = _attempt("print(open('/proc/self/net/dev').read().count(':'))")
    assert outcome.stdout == "1\n"


@pytest.mark.skipif(sys.platform == "win32", reason="no processor limits there")
def test_processor_time_is_granted_and_taken() -> None:
    outcome = _attempt("grant_cpu(1)\nwhile True: pass")
    assert -outcome.returncode in (24, 9)  # SIGXCPU, or SIGKILL at the hard limit
