"""Frames on a local socket: a small table in JSON, then bytes that nobody here looks into.

    4 bytes length of the head | 8 bytes length of the body | head | body

Both ends are processes of one user on one machine; limits are there against accidents, and against
a reply that would fill the memory.
"""

import json
import socket
import struct
from pathlib import Path
from typing import Any

_LENGTHS = struct.Struct(">IQ")
_MOST_HEAD = 64 * 1024  # bytes
MOST = 4 * 1024**3  # bytes of a body

Head = dict[str, Any]


class BrokenFrameError(OSError):
    """A frame that is too large, or is none, or ends too early."""


def send(connection: socket.socket, head: Head, body: bytes = b"") -> None:
    """Send one frame."""
    told = json.dumps(head).encode()
    connection.sendall(_LENGTHS.pack(len(told), len(body)) + told)
    if body:
        connection.sendall(body)


def receive(connection: socket.socket, most: int = MOST) -> tuple[Head, bytes] | None:
    """The next frame; None where the other side has closed.

    Raises:
        BrokenFrameError: It is larger than `most`, or is no frame.
    """
    lengths = _exactly(connection, _LENGTHS.size, begun=False)
    if not lengths:
        return None
    head_length, body_length = _LENGTHS.unpack(lengths)
    if head_length > _MOST_HEAD or body_length > most:
        raise BrokenFrameError(f"a frame of {head_length} and {body_length} bytes")
    return _head(_exactly(connection, head_length)), _exactly(connection, body_length)


def connect(path: Path, within: float) -> tuple[socket.socket, str]:
    """Connect to a socket; with the secret that is kept beside it.

    Args:
        path: Of the socket.
        within: Seconds.
    """
    secret = path.with_suffix(".secret").read_text("ascii")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(within)
        connection.connect(str(path))
        connection.settimeout(None)
    except OSError:
        connection.close()
        raise
    return connection, secret


def _head(told: bytes) -> Head:
    try:
        head = json.loads(told)
    except ValueError as error:
        raise BrokenFrameError("a head that is no JSON") from error
    if not isinstance(head, dict):
        raise BrokenFrameError("a head that is no table")
    return head


def _exactly(connection: socket.socket, length: int, *, begun: bool = True) -> bytes:
    """So many bytes; none where the other side has closed and nothing has begun."""
    found = bytearray(length)
    view, have = memoryview(found), 0
    while have < length:
        got = connection.recv_into(view[have:])
        if got == 0 and not have and not begun:
            return b""
        if got == 0:
            raise BrokenFrameError(f"{have} of {length} bytes, then the end")
        have += got
    return bytes(found)
