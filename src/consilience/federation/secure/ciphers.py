"""Derived keys, streams, boxes and agreement, from the package `cryptography`.

The only module that touches that package. It knows nothing of parties or rounds: what a key is for
is said by its labels, and no two labels make the same key.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from consilience.errors import DamagedError, DependencyError

INSTALL = "pip install 'consilience[federation]'"
SIZE = 32
"""Bytes of a key and of a seed."""

_SALT = b"consilience secure sums 1"
_NONCE = 12
_PIECE = 1 << 16  # words; stream and sum of a piece stay in the processor's cache
_ZEROS = memoryview(bytes(4 * _PIECE))

Words = NDArray[np.uint32]
"""Whole numbers modulo 2^32."""


def label(*parts: str | list[str]) -> bytes:
    """Bytes that no other parts have."""
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode()


def derive(secret: bytes, *parts: str | list[str]) -> bytes:
    """A key of 32 bytes for one purpose: HKDF-SHA256 (RFC 5869), with `label` as its info.

    Raises:
        DependencyError: The package `cryptography` is not installed.
    """
    with needed():
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    return HKDF(SHA256(), SIZE, _SALT, label(*parts)).derive(secret)


def tag(secret: bytes) -> str:
    """What tells a secret of 32 random bytes from any other, and nothing about it."""
    return derive(secret, "tag").hex()


def stream(seed: bytes, size: int) -> bytes:
    """The first bytes of AES-256 in counter mode under a seed that is used for nothing else."""
    with needed():
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    return Cipher(algorithms.AES256(seed), modes.CTR(bytes(16))).encryptor().update(bytes(size))


def add_stream(total: Words, seed: bytes, *, sign: int) -> None:
    """Add the stream of a seed to a vector in place, or take it away: modulo 2^32.

    Args:
        total: Words [length].
        seed: 32 bytes, used for nothing else.
        sign: 1 adds, -1 takes away.
    """
    with needed():
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    encryptor = Cipher(algorithms.AES256(seed), modes.CTR(bytes(16))).encryptor()
    buffer = bytearray(4 * _PIECE + 15)
    step = np.add if sign > 0 else np.subtract
    for start in range(0, len(total), _PIECE):
        piece = total[start : start + _PIECE]
        encryptor.update_into(_ZEROS[: 4 * len(piece)], buffer)
        step(piece, np.frombuffer(buffer, "<u4", len(piece)), out=piece)


def box(key: bytes, nonce: bytes, data: bytes, about: bytes) -> str:
    """Encrypt and authenticate: AES-256-GCM.

    Args:
        key: For this sender, receiver and purpose only.
        nonce: Of these data only; its first 12 bytes count.
        data: What is hidden.
        about: What is authenticated with it.
    """
    with needed():
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    once = nonce[:_NONCE]
    return (once + AESGCM(key).encrypt(once, data, about)).hex()


def unbox(key: bytes, boxed: str, about: bytes) -> bytes:
    """What `box` hid.

    Raises:
        DamagedError: It was made with another key, about something else, or changed on the way.
    """
    with needed():
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    try:
        found = bytes.fromhex(boxed)
        return AESGCM(key).decrypt(found[:_NONCE], found[_NONCE:], about)
    except (InvalidTag, ValueError, TypeError) as error:
        raise DamagedError(
            "an encrypted share that cannot be opened",
            hint="it was changed on the way, or is of another round or party",
        ) from error


@contextmanager
def needed() -> Iterator[None]:
    """Say which line installs the package, where an import of it fails."""
    try:
        yield
    except ImportError as error:
        raise DependencyError(
            "secure sums need the package cryptography, not installed", hint=INSTALL
        ) from error
