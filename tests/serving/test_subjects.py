from dataclasses import dataclass

import pytest

from consilience.serving.subjects import ACTIONS, OWNER, Action, Subject, authorise, labels_told


@dataclass(frozen=True)
class Thing:
    access: tuple[str, ...] = ()


def subject(*scopes: Action, labels: set[str] | None = None) -> Subject:
    return Subject("1", "a", frozenset(scopes), None if labels is None else frozenset(labels))


GRANTS = {
    (): (),
    ("read",): ("read",),
    ("write",): ("read", "write"),
    ("admin",): ("read", "write", "admin"),
    ("read", "write"): ("read", "write"),
}


@pytest.mark.parametrize(("scopes", "granted"), GRANTS.items())
@pytest.mark.parametrize("action", ACTIONS)
def test_a_scope_grants_itself_and_what_is_below_it(
    scopes: tuple[Action, ...], granted: tuple[Action, ...], action: Action
) -> None:
    assert authorise(subject(*scopes), action) is (action in granted)
    assert authorise(subject(*scopes), action, Thing()) is (action in granted)


@pytest.mark.parametrize("action", ACTIONS)
def test_nobody_may_do_nothing(action: Action) -> None:
    assert not authorise(None, action)
    assert not authorise(None, action, Thing())


@pytest.mark.parametrize(
    ("labels", "access", "may"),
    [
        (None, (), True),
        (None, ("staff",), True),
        (set(), (), True),
        (set(), ("staff",), False),
        ({"ward"}, ("staff",), False),
        ({"staf"}, ("staff",), False),
        ({"ward", "staff"}, ("staff", "board"), True),
    ],
)
@pytest.mark.parametrize("action", ["read", "write"])
def test_labels_hide_from_reading_and_from_changing(
    labels: set[str] | None, access: tuple[str, ...], may: bool, action: Action
) -> None:
    assert authorise(subject("write", labels=labels), action, Thing(access)) is may


def test_the_owner_may_everything() -> None:
    assert all(authorise(OWNER, action, Thing(("x",))) for action in ACTIONS)


def test_names_of_labels_are_told_to_those_who_hold_them() -> None:
    access = ("staff", "board")
    assert labels_told(OWNER, access) == ["board", "staff"]
    assert labels_told(subject("read", labels={"staff"}), access) == ["staff"]
    assert labels_told(subject("read", labels=set()), access) == []
