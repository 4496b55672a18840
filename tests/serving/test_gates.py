import pytest

from consilience.serving.config import Limits
from consilience.serving.errors import OverloadedError, RateError
from consilience.serving.gates import KINDS, Gates, kind_of


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_full_gate_refuses_until_somebody_leaves() -> None:
    gates = Gates(Limits(asks=1, waiting=1))
    leave = gates.enter("asks")
    gates.enter("asks")
    with pytest.raises(OverloadedError) as caught:
        gates.enter("asks")
    assert "2 asks are in work or waiting, and there is room for 2" in caught.value.message
    assert caught.value.retry_after == 2
    gates.enter("searches")
    leave()
    gates.enter("asks")
    assert gates.answering == 3


def test_what_is_open_is_never_full() -> None:
    gates = Gates(Limits())
    for _ in range(1000):
        gates.enter("open")
    assert gates.answering == 0


def test_every_other_kind_has_room_for_a_while_only() -> None:
    for kind in ("uploads", "watchers", "others", "searches", "asks"):
        gates = Gates(Limits())
        for _ in range(gates.gates[kind].room):
            gates.enter(kind)
        assert gates.gates[kind].room < 1000
        with pytest.raises(OverloadedError):
            gates.enter(kind)


def test_a_closing_server_takes_nothing_new_but_tells_how_it_is() -> None:
    gates = Gates(Limits())
    leave = gates.enter("asks")
    gates.close()
    for kind in ("asks", "searches", "uploads", "watchers", "others"):
        with pytest.raises(OverloadedError, match="about to stop"):
            gates.enter(kind)
    gates.enter("open")()
    assert gates.answering == 1
    leave()
    assert gates.answering == 0


def test_watchers_are_not_waited_for() -> None:
    gates = Gates(Limits())
    gates.enter("watchers")
    assert gates.answering == 0


def test_a_key_may_send_so_many_requests_in_a_minute() -> None:
    clock = Clock()
    gates = Gates(Limits(rate=60), clock=clock)
    for _ in range(60):
        gates.count("a")
    with pytest.raises(RateError) as caught:
        gates.count("a")
    assert caught.value.message == "this key may send 60 requests in a minute"
    assert 1 <= caught.value.retry_after <= 2
    gates.count("b")
    clock.now += 1
    gates.count("a")
    with pytest.raises(RateError):
        gates.count("a")
    clock.now += 3600
    for _ in range(60):
        gates.count("a")
    with pytest.raises(RateError):
        gates.count("a")


def test_the_owner_and_a_rate_of_none_are_not_counted() -> None:
    for gates, key in ((Gates(Limits(rate=1)), ""), (Gates(Limits(rate=0)), "a")):
        for _ in range(100):
            gates.count(key)


def test_other_limits_hold_from_now_on() -> None:
    gates = Gates(Limits(searches=1))
    gates.enter("searches")
    gates.resize(Limits(searches=2, rate=1))
    gates.enter("searches")
    with pytest.raises(OverloadedError):
        gates.enter("searches")
    gates.count("a")
    with pytest.raises(RateError):
        gates.count("a")


def test_a_kind_is_found_by_the_route() -> None:
    assert kind_of("GET", "/v1/documents") == "others"
    for method, path, kind in (
        ("GET", "/v1/health", "open"),
        ("GET", "/metrics", "open"),
        ("DELETE", "/v1/ask/{id}", "open"),
        ("POST", "/v1/ask", "asks"),
        ("POST", "/v1/chat/completions", "asks"),
        ("POST", "/v1/search", "searches"),
        ("POST", "/v1/embeddings", "searches"),
        ("POST", "/v1/documents", "uploads"),
        ("POST", "/v1/evaluations", "uploads"),
        ("GET", "/v1/jobs/events", "watchers"),
        ("GET", "/v1/runs/{name}/events", "watchers"),
    ):
        assert kind_of(method, path) == kind, (method, path)
    assert len(KINDS) == 11, "every one is above"
