import pytest

from consilience.store import visible
from consilience.store.access import valid_labels


@pytest.mark.parametrize(
    ("access", "held", "expected"),
    [
        ((), None, True),
        (("staff",), None, True),
        ((), (), True),
        ((), ("staff",), True),
        (("staff",), (), False),
        (("staff",), ("staff",), True),
        (("staff", "board"), ("board", "audit"), True),
        (("staff",), ("board",), False),
        (("a",), "staff", False),
        (("staff",), "staff", True),
    ],
)
def test_who_may_read(
    access: tuple[str, ...], held: tuple[str, ...] | None, expected: bool
) -> None:
    assert visible(access, held) is expected


@pytest.mark.parametrize(
    ("access", "valid"),
    [
        ((), True),
        (("a",), True),
        (["a"], True),
        ("a", False),
        (("",), False),
        ((1,), False),
        (("a\x00",), False),
    ],
)
def test_what_labels_are(access: object, valid: bool) -> None:
    assert valid_labels(access) is valid
