import numpy as np
import pytest

from consilience.retrieval.codes import codes_of, width_of
from tests.retrieval.vectors import unit


@pytest.mark.parametrize(
    ("dimension", "width"),
    [(1, 4), (32, 4), (33, 8), (256, 32), (384, 64), (512, 64), (513, 72), (768, 96)],
)
def test_codes_have_lengths_that_are_counted_fast(dimension: int, width: int) -> None:
    assert width_of(dimension) == width
    codes = codes_of(np.zeros((3, dimension), np.float16))
    assert (codes.shape, codes.dtype) == ((3, width), np.uint8)


def test_the_share_of_common_bits_tells_the_angle() -> None:
    rng = np.random.default_rng(0)
    one = unit(rng, 400, 384).astype(np.float32)
    other = one + rng.normal(size=one.shape).astype(np.float32) * rng.uniform(0, 0.1, (400, 1))
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    angles = np.arccos(np.clip((one * other).sum(1), -1, 1))
    differing = np.bitwise_count(codes_of(one) ^ codes_of(other)).sum(1) / 512
    # A plane parts two vectors with the probability angle / pi.
    assert np.abs(differing - angles / np.pi).max() < 0.08
    assert np.corrcoef(differing, angles)[0, 1] > 0.98


def test_opposite_vectors_share_no_bit() -> None:
    vectors = unit(np.random.default_rng(1), 20, 384)
    assert (np.bitwise_count(codes_of(vectors) ^ codes_of(-vectors)).sum(1) == 512).all()


def test_a_code_never_changes() -> None:
    ramp = np.linspace(-1, 1, 384, dtype=np.float32)[None]
    assert codes_of(ramp).tobytes()[:8].hex() == "ee91993b7352adb7"
