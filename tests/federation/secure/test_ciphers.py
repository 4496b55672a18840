"""Keys, streams and boxes."""

import sys

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from consilience.errors import DamagedError, DependencyError
from consilience.federation.secure import ciphers
from consilience.federation.secure.ciphers import (
    add_stream,
    box,
    derive,
    label,
    stream,
    tag,
    unbox,
)

SEED = bytes(range(32))
PIECE = ciphers._PIECE


def words(data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<u4")


def test_the_stream_is_aes_in_counter_mode() -> None:
    counters = b"".join(number.to_bytes(16, "big") for number in range(8))
    blocks = Cipher(algorithms.AES256(SEED), modes.ECB()).encryptor().update(counters)
    assert stream(SEED, 8 * 16) == blocks


@pytest.mark.parametrize("length", [0, 1, 5, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 7])
def test_a_stream_is_added_whole_whatever_the_length(length: int) -> None:
    total = np.full(length, 0xFFFFFFF0, np.uint32)
    add_stream(total, SEED, sign=1)
    expected = (words(stream(SEED, 4 * length)).astype(np.uint64) + 0xFFFFFFF0) % 2**32
    assert np.array_equal(total, expected)
    add_stream(total, SEED, sign=-1)
    assert np.array_equal(total, np.full(length, 0xFFFFFFF0, np.uint32))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.text(), st.lists(st.text(), max_size=3)), max_size=4),
    st.lists(st.one_of(st.text(), st.lists(st.text(), max_size=3)), max_size=4),
)
def test_two_purposes_never_share_a_key(one: list, other: list) -> None:
    assert (label(*one) == label(*other)) == (one == other)
    assert (derive(SEED, *one) == derive(SEED, *other)) == (one == other)


def test_a_tag_is_no_key() -> None:
    assert tag(SEED) != tag(SEED[::-1])
    assert bytes.fromhex(tag(SEED)) not in (SEED, derive(SEED, "mask"))


@pytest.mark.parametrize(
    ("key", "about", "change"),
    [
        (SEED[::-1], b"about", 0),
        (SEED, b"other", 0),
        (SEED, b"about", 1),
    ],
)
def test_a_box_opens_with_its_key_about_its_matter_and_unchanged(
    key: bytes, about: bytes, change: int
) -> None:
    boxed = box(SEED, bytes(32), b"a share", b"about")
    assert unbox(SEED, boxed, b"about") == b"a share"
    changed = boxed[:-1] + format(int(boxed[-1], 16) ^ change, "x")
    with pytest.raises(DamagedError, match="an encrypted share that cannot be opened"):
        unbox(key, changed, about)


@pytest.mark.parametrize("text", ["", "zz", "00" * 5])
def test_what_is_no_box_is_not_opened(text: str) -> None:
    with pytest.raises(DamagedError, match="cannot be opened"):
        unbox(SEED, text, b"about")


def test_without_the_package_the_line_that_installs_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.startswith("cryptography")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DependencyError, match="need the package cryptography") as raised:
        derive(SEED, "mask")
    assert raised.value.hint == "pip install 'consilience[federation]'"
