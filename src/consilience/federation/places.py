"""Folders and files that only their owner may read, and sockets in them.

A socket's path may have 107 bytes, fewer than many a home folder has: sockets live in a folder of
their own below the system's folder for temporary files and go with the process.
"""

import contextlib
import os
import secrets
import shutil
import socket
import tempfile
from pathlib import Path

from consilience.errors import BusyError

_BACKLOG = 16


def private_file(path: Path, content: bytes, *, new: bool = False) -> Path:
    """Write a file that only its owner can read, from its first moment.

    Raises:
        FileExistsError: With `new`, it is there already.
    """
    kind = os.O_EXCL if new else os.O_TRUNC
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | kind, 0o600), "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return path


def short_folder() -> Path:
    """A new folder with a short path, for sockets."""
    return Path(tempfile.mkdtemp(prefix="consilience-"))


def gone(folder: Path) -> None:
    """Remove a folder that `short_folder` made."""
    shutil.rmtree(folder, ignore_errors=True)


def listen(path: Path) -> tuple[socket.socket, str]:
    """Listen on a new socket, and make the secret that callers must know, beside it.

    Raises:
        BusyError: Somebody listens there.
    """
    secret = secrets.token_hex(32)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise BusyError(
            f"{path} cannot be listened on: {error.strerror}",
            hint="is the same party or coordinator running already?",
        ) from error
    path.chmod(0o600)
    private_file(path.with_suffix(".secret"), secret.encode("ascii"))
    listener.listen(_BACKLOG)
    return listener, secret


def deaf(connection: socket.socket) -> None:
    """Close it, and wake the thread that waits in `accept` or `recv`; again does nothing."""
    with contextlib.suppress(OSError):  # closed before, or by the other side
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
