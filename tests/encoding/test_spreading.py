import pytest

from consilience.encoding.spreading import Spread
from consilience.errors import UsageError


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1", Spread(1)),
        ("12", Spread(12)),
        ("ray", Spread(0, ray=True)),
        ("ray:3", Spread(3, ray=True)),
        ("ray://head:10001", Spread(0, ray=True, address="ray://head:10001")),
        ("ray://10.0.0.7:10001?actors=8", Spread(8, ray=True, address="ray://10.0.0.7:10001")),
        ("ray://[::1]:10001", Spread(0, ray=True, address="ray://[::1]:10001")),
    ],
)
def test_what_is_written_is_what_is_meant(text: str, found: Spread) -> None:
    assert Spread.parse(text) == found
    assert found.alone == (text == "1")


@pytest.mark.parametrize(
    "text",
    ["0", "-1", "", "two", "ray:0", "ray:", "ray://", "ray://head", "ray://head:1?actors=0", "²"],
)
def test_what_is_neither_a_number_nor_ray_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as error:
        Spread.parse(text)
    assert error.value.message == (
        f"workers must be a number, at least 1, or name Ray, received {text!r}"
    )
    assert error.value.hint == (
        "One of: 4, ray, ray:4, ray://HOST:10001, ray://HOST:10001?actors=4."
    )
