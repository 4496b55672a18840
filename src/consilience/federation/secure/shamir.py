"""Secrets in shares: any `threshold` of them make it again, fewer say nothing (Shamir, 1979).

Over the integers modulo the smallest prime above 2^256, so that every secret of 32 bytes is one
element. A share is the value at its number, 33 bytes.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, islice

PRIME = 2**256 + 297
SHARE = 33
"""Bytes of a share."""

COEFFICIENT = 48
"""Random bytes for one coefficient: reduced modulo the prime, 2^-128 away from uniform."""

_TRIES = 512  # choices of shares that are tried where some of them are wrong


def split(secret: bytes, numbers: Sequence[int], random: Sequence[bytes]) -> dict[int, bytes]:
    """Shares of a secret: f(n) = secret + Σ_k a_k n^k modulo the prime, for each number n.

    Args:
        secret: 32 bytes.
        numbers: From 1; each share has its own.
        random: For each coefficient a_1 … a_(t-1) `COEFFICIENT` random bytes; any t shares make
            the secret again.
    """
    found = [int.from_bytes(each, "little") % PRIME for each in random]
    polynomial = [int.from_bytes(secret, "little"), *found]
    return {n: _at(polynomial, n).to_bytes(SHARE, "little") for n in numbers}


def join(
    shares: Mapping[int, bytes], *, threshold: int, right: Callable[[bytes], bool]
) -> bytes | None:
    """The secret of which these are shares; None where they make none that is right.

    Wrong shares do no harm while `threshold` right ones are there and the choices of them are few:
    they are tried one after the other.

    Args:
        shares: By number.
        threshold: How many make the secret.
        right: Knows the secret when it sees it.
    """
    known = {n: int.from_bytes(share, "little") for n, share in sorted(shares.items())}
    for chosen in islice(combinations(known, threshold), _TRIES):
        value = _at_zero({n: known[n] for n in chosen})
        if value < 2**256 and right(secret := value.to_bytes(32, "little")):
            return secret
    return None


def _at(polynomial: Sequence[int], place: int) -> int:
    value = 0
    for coefficient in reversed(polynomial):
        value = (value * place + coefficient) % PRIME
    return value


def _at_zero(values: Mapping[int, int]) -> int:
    """The polynomial through these points at 0: Σ_i y_i Π_(j≠i) j / (j - i)."""
    total = 0
    for i, value in values.items():
        above, below = value, 1
        for j in values:
            if j != i:
                above, below = above * j % PRIME, below * (j - i) % PRIME
        total += above * pow(below, -1, PRIME)
    return total % PRIME
