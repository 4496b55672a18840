"""What a reading child takes away from itself before it sees the first byte of a file.

Memory, files, processes and the network go for good; processor time is granted anew for each file.
Each measure is applied where the system knows it and left out where it does not (macOS has no
namespaces, Windows no resource limits), so the clock in the parent is the one limit that always
holds. The measures stop files that make a parser misbehave. They are no jail for code that has
already taken over the child: for that, run the whole program in a container.
"""

import contextlib
import os
import sys
from typing import Any

_OPEN_FILES = 64
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET
_NEW_USER = 0x10000000  # CLONE_NEWUSER

_REFUSED_EVENTS = frozenset(
    {
        "os.chmod",
        "os.chown",
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.kill",
        "os.link",
        "os.mkdir",
        "os.posix_spawn",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.spawn",
        "os.startfile",
        "os.symlink",
        "os.system",
        "os.truncate",
        "subprocess.Popen",
    }
)


def confine(memory_bytes: int) -> None:
    """Give up network, processes, writing and most memory, for the rest of this process's life.

    Args:
        memory_bytes: Address space of the process, in bytes.
    """
    _leave_network()
    for name, value in (
        ("RLIMIT_AS", memory_bytes),
        ("RLIMIT_DATA", memory_bytes),
        ("RLIMIT_FSIZE", 0),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_NPROC", 0),
        ("RLIMIT_NOFILE", _OPEN_FILES),
    ):
        _limit(name, value)
    sys.addaudithook(_refuse)


def grant_cpu(seconds: int) -> None:
    """Allow `seconds` more of processor time than was used so far; past it the system kills."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        usage = resource.getrusage(resource.RUSAGE_SELF)
        used = usage.ru_utime + usage.ru_stime
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(used) + 1 + seconds, hard))


def peak_memory() -> int:
    """The most address space that this process ever held, in bytes; 0 where no one tells."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            peaks = [line.split()[1] for line in status if line.startswith("VmPeak:")]
    except OSError:
        return 0
    return 1024 * int(peaks[0]) if peaks else 0


def _limit(name: str, value: int) -> None:
    """Set a limit, soft and hard; a system may lack it or already hold a lower one."""
    with contextlib.suppress(ImportError, AttributeError, OSError, ValueError):
        import resource

        resource.setrlimit(getattr(resource, name), (value, value))


def _leave_network() -> None:
    """Move into a network namespace with no interface, as root or in a new user namespace."""
    if sys.platform != "linux":
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        unshare = ctypes.CDLL(None, use_errno=True).unshare
        if unshare(_NEW_NETWORK) != 0:
            unshare(_NEW_USER | _NEW_NETWORK)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """The audit hook: no sockets, no processes, no change to any file."""
    if event == "open":
        _refuse_writing(arguments)
    elif event in _REFUSED_EVENTS or event.startswith("socket."):
        raise PermissionError(f"a document reader may not do this: {event}")


def _refuse_writing(arguments: tuple[Any, ...]) -> None:
    flags = arguments[2] if len(arguments) > 2 and isinstance(arguments[2], int) else 0
    if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        raise PermissionError("a document reader may not write to a file: open")
