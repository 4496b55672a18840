import socket
from collections.abc import Iterator
from email.utils import formatdate
from itertools import chain, repeat
from typing import Any

import pytest

from consilience.errors import RemoteError, UsageError
from consilience.generation.endpoint import (
    KEY_VARIABLE,
    Choice,
    Endpoint,
    Limits,
    _retry_after,
)
from tests.generation.services import Behaviour, Handler, in_turn, says, serving, text

HASTY = Limits(connect=1.0, read=0.1, total=0.2, retries=0)
DRIPPING = Limits(connect=1.0, read=0.15, total=0.3, retries=0)
KEY = "sk-quite-secret"


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


def failure(behave: Behaviour, limits: Limits | None = None, key: str | None = None) -> RemoteError:
    """The error that a behaviour leads to; it names the address always."""
    with serving(behave) as service:
        endpoint = Endpoint(service.address, key=key, limits=limits, pause=lambda _: None)
        with pytest.raises(RemoteError) as raised:
            endpoint.complete({"prompt": "x"})
    assert raised.value.message.startswith(service.address)
    assert raised.value.hint
    return raised.value


class TestGoodAnswers:
    def test_a_completion(self) -> None:
        with serving(says(text("one", "二"))) as service:
            found = Endpoint(service.address).complete({"prompt": "x", "n": 2})
        assert found == [Choice("one"), Choice("二")]
        (asked,) = service.asked
        assert (asked.path, asked.body) == ("/v1/completions", {"prompt": "x", "n": 2})
        headers = {"Accept-Encoding": "identity", "Connection": "close"}
        assert asked.headers | headers == asked.headers

    def test_a_chat(self) -> None:
        logprobs = {"content": [{"token": "ye", "logprob": -0.5}, {"token": "s", "logprob": 0}]}
        choice = {"message": {"content": "yes"}, "logprobs": logprobs}
        with serving(says({"choices": [choice]})) as service:
            found = Endpoint(service.address + "/").chat({"messages": []})
        assert found == [Choice("yes", ("ye", "s"), (-0.5, 0))]
        assert service.asked[0].path == "/v1/chat/completions"

    def test_the_first_token_may_lack_its_log_probability(self) -> None:
        logprobs = {"tokens": ["a", "b"], "token_logprobs": [None, -1.5]}
        with serving(says({"choices": [{"text": "ab", "logprobs": logprobs}]})) as service:
            (found,) = Endpoint(service.address).complete({})
        assert found.log_probs == (None, -1.5)

    def test_an_answer_in_chunks(self) -> None:
        def chunked(handler: Handler, _: dict[str, Any]) -> None:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            handler.wfile.write(b'10\r\n{"choices":[{"te\r\n9\r\nxt":"a"}]\r\n1\r\n}\r\n0\r\n\r\n')

        with serving(chunked) as service:
            assert Endpoint(service.address).complete({}) == [Choice("a")]


class TestKeys:
    def test_the_argument_comes_before_the_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(KEY_VARIABLE, "from-environment")
        monkeypatch.setenv("OTHER", "from-other")
        with serving(says(text("a"))) as service:
            for settings in ({"key": KEY}, {}, {"key_variable": "OTHER"}, {"key": ""}):
                Endpoint(service.address, **settings).complete({})
        sent = [asked.headers.get("Authorization") for asked in service.asked]
        assert sent == [f"Bearer {KEY}", "Bearer from-environment", "Bearer from-other", None]

    def test_a_key_that_the_service_repeats_is_struck_out(self) -> None:
        error = failure(says({"error": f"wrong key {KEY}!"}, 401), key=KEY)
        assert KEY not in error.message
        assert "wrong key [key]!" in error.message
        assert error.status == 401
        assert "is the key right?" in error.hint

    def test_a_key_in_any_other_place_is_struck_out(self) -> None:
        for behave in (
            says({"said": KEY}),
            says(b"", 307, {"Location": f"http://else.example/{KEY}"}),
            says(b"", 503, {"Retry-After": KEY}),
            lambda handler, _: handler.wfile.write(f"HTTP/{KEY}\r\n\r\n".encode()),
        ):
            assert KEY not in failure(behave, HASTY, key=KEY).message

    def test_it_is_not_shown(self) -> None:
        assert repr(Endpoint("https://models.example/v1/", key=KEY)) == (
            "Endpoint('https://models.example/v1')"
        )

    @pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel"])
    def test_an_impossible_key_is_refused_unquoted(self, key: str) -> None:
        with pytest.raises(UsageError, match="the key holds spaces or characters") as raised:
            Endpoint("https://models.example/v1", key=key)
        assert key not in raised.value.message + raised.value.hint


class TestAddresses:
    @pytest.mark.parametrize(
        "address",
        [
            *("models.example/v1", "ftp://models.example", "https://", "", "https://[::1"),
            *("https://models.example:port/v1", "https://models.example/v1?key=1"),
            *("https://me:hunter2@models.example/v1", "https://@models.example", "http://a/#b"),
            "https://models.example/\nv1",
            "https://models.example/v 1",
        ],
    )
    def test_what_is_none_is_refused_unquoted(self, address: str) -> None:
        with pytest.raises(UsageError, match="not of the form https://host/path") as raised:
            Endpoint(address)
        assert "hunter2" not in str(raised.value.to_dict())

    @pytest.mark.parametrize("host", ["models.example", "10.0.0.1", "localhost.example", "127.1"])
    def test_plain_http_stays_on_this_machine(self, host: str) -> None:
        with pytest.raises(UsageError, match=f"plain http to {host} would send") as raised:
            Endpoint(f"http://{host}/v1")
        assert "allow_http=True" in raised.value.hint
        assert Endpoint(f"http://{host}/v1", allow_http=True).address == f"http://{host}/v1"

    @pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "127.9.9.9:1", "[::1]:8000"])
    def test_this_machine_needs_no_encryption(self, host: str) -> None:
        assert Endpoint(f"http://{host}").address == f"http://{host}"

    def test_nobody_there(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            endpoint = Endpoint(f"http://127.0.0.1:{taken.getsockname()[1]}")
            with pytest.raises(RemoteError, match=r"cannot be reached: .*refused"):
                endpoint.complete({})

    def test_a_name_that_no_resolver_takes(self) -> None:
        with pytest.raises(RemoteError, match="cannot be reached"):
            Endpoint(f"https://{'a' * 70}.example").complete({})

    def test_a_service_without_encryption_under_https(self) -> None:
        with serving(says(text("a"))) as service:
            address = service.address.replace("http:", "https:")
            with pytest.raises(RemoteError, match=r"cannot be reached: .*SSL"):
                Endpoint(address, limits=Limits(retries=0)).complete({})
        assert service.asked == []


def _headers_for_ever() -> Iterator[bytes]:
    return chain([b"HTTP/1.1 200 OK\r\n"], repeat(b"X-More: 1\r\n", 60))


def _body_for_ever() -> Iterator[bytes]:
    return chain([b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"], repeat(b" ", 90))


class TestTime:
    @pytest.mark.parametrize(
        "limits", [Limits(read=0.1, retries=0), Limits(read=30.0, total=0.2, retries=0)]
    )
    def test_a_service_that_never_answers(self, limits: Limits) -> None:
        error = failure(lambda handler, _: handler.drip(repeat(b"", 150)), limits)
        waited = f"{limits.read:g} s between two pieces and {limits.total:g} s in all are waited"
        assert f"did not answer in time: 10 s to connect, {waited}" in error.message

    @pytest.mark.parametrize("pieces", [_headers_for_ever, _body_for_ever])
    def test_a_service_that_drips(self, pieces: Any) -> None:
        """Every single wait is short; only a deadline for the whole ends it."""
        error = failure(lambda handler, _: handler.drip(pieces()), DRIPPING)
        assert "did not answer in time" in error.message

    def test_a_service_that_says_to_go_on_for_ever(self) -> None:
        pieces = repeat(b"HTTP/1.1 100 Continue\r\n\r\n", 90)
        error = failure(lambda handler, _: handler.drip(pieces), DRIPPING)
        assert "did not answer in time" in error.message

    def test_a_service_that_does_not_read(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            endpoint = Endpoint(f"http://127.0.0.1:{listening.getsockname()[1]}", limits=HASTY)
            with pytest.raises(RemoteError, match="did not answer in time"):
                endpoint.complete({"prompt": "x" * 20_000_000})


class TestAgain:
    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    def test_what_may_pass_is_tried_again(self, status: int) -> None:
        waits: list[float] = []
        behave = in_turn(says({}, status), says({}, status), says(text("a")))
        with serving(behave) as service:
            endpoint = Endpoint(service.address, pause=waits.append)
            assert endpoint.complete({}) == [Choice("a")]
        assert len(service.asked) == 3
        assert 0.5 <= waits[0] <= 1.0 <= waits[1] <= 2.0

    def test_not_for_ever(self) -> None:
        error = failure(says({"error": "busy"}, 503))
        assert "with status 503 after 3 attempts" in error.message
        assert "busy" in error.message

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 418, 501])
    def test_what_stays_wrong_is_not(self, status: int) -> None:
        with serving(says({}, status)) as service:
            with pytest.raises(RemoteError, match=f"with status {status}; received") as raised:
                Endpoint(service.address, pause=lambda _: None).complete({})
            assert len(service.asked) == 1
        assert raised.value.status == status

    def test_the_service_says_how_long(self) -> None:
        waits: list[float] = []
        behave = in_turn(says({}, 429, {"Retry-After": "7"}), says(text("a")))
        with serving(behave) as service:
            Endpoint(service.address, pause=waits.append).complete({})
        assert waits == [7.0]

    @pytest.mark.parametrize(
        ("asks", "limits"), [("999", Limits()), ("5", Limits(total=3.0)), ("9" * 400, Limits())]
    )
    def test_but_not_too_long(self, asks: str, limits: Limits) -> None:
        error = failure(says({}, 429, {"Retry-After": asks}), limits)
        assert f"asks to wait '{asks[:200]}'" in error.message
        assert "attempts" not in error.message

    def test_a_date_is_a_length_too(self) -> None:
        assert _retry_after(formatdate(0, usegmt=True)) == 0.0
        assert (_retry_after("Fri, 01 Jan 2100 00:00:00 GMT") or 0) > 1e6
        for odd in ("", "soon", "-3", "Fri, 99 Jan 2100"):
            assert _retry_after(odd) is None


class TestElsewhere:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_nothing_is_followed(self, status: int) -> None:
        with serving(says(text("stolen"))) as other:
            error = failure(says(b"", status, {"Location": other.address}), key=KEY)
        assert other.asked == []
        assert f"redirects to '{other.address}'" in error.message
        assert error.status == status


class TestSize:
    def test_too_large_an_answer(self) -> None:
        limits = Limits(response_bytes=1000)
        assert "more than 1000 bytes" in failure(says(text("a" * 1000)), limits).message

    def test_an_answer_without_end(self) -> None:
        def endless(handler: Handler, _: dict[str, Any]) -> None:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while not handler.service.over.is_set():
                handler.wfile.write(b"a" * 65536)

        assert "more than 8388608 bytes" in failure(endless).message

    def test_an_answer_just_small_enough(self) -> None:
        content = text("a")
        with serving(says(content)) as service:
            limits = Limits(response_bytes=len('{"choices": [{"text": "a"}]}'))
            assert Endpoint(service.address, limits=limits).complete({}) == [Choice("a")]


def _with(logprobs: object) -> dict[str, Any]:
    return {"choices": [{"text": "ab", "logprobs": logprobs}]}


NONSENSE = [
    (b"<html>hello</html>", "no JSON; received: '<html>hello"),
    (b"", "no JSON; received: ''"),
    (b"\xff\xfe", "no JSON"),
    (b"[" * 100_000, "no JSON"),
    (b'{"choices": [{"text": "a"}', "no JSON"),
    ([], "no choices that hold a text"),
    (3, "no choices that hold a text"),
    ({"error": "no such model"}, 'no choices that hold a text; received: \'{"error": "no such'),
    ({"choices": []}, "no choices; received"),
    ({"choices": {"text": "a"}}, "no choices that hold a text"),
    ({"choices": [{}]}, "no choices that hold a text"),
    ({"choices": ["a"]}, "no choices that hold a text"),
    ({"choices": [{"text": None}]}, "a choice without text"),
    (_with({"tokens": ["a", "b"], "token_logprobs": [-1.0]}), "1 log probabilities for 2 tokens"),
    (_with({"tokens": ["a", 5], "token_logprobs": [-1.0, -1.0]}), "tokens that are no text"),
    (_with({"tokens": ["a", "b"], "token_logprobs": [-1.0, None]}), "a token without its log"),
    (
        _with({"tokens": ["a", "b"], "token_logprobs": [-1.0, 0.5]}),
        "log probabilities that are none",
    ),
    (
        _with({"tokens": ["a", "b"], "token_logprobs": [-1.0, "x"]}),
        "log probabilities that are none",
    ),
    (
        _with({"tokens": ["a", "b"], "token_logprobs": [-1.0, True]}),
        "log probabilities that are none",
    ),
    (_with({"tokens": ["a"], "token_logprobs": [float("nan")]}), "NaN where a number should be"),
    (_with({"tokens": ["a"], "token_logprobs": [float("-inf")]}), "-Infinity where a number"),
    (_with({"tokens": ["a"]}), "log probabilities of an unknown form"),
    (_with(5), "log probabilities of an unknown form"),
    (_with({"content": [{"token": "a"}]}), "log probabilities of an unknown form"),
]


class TestNonsense:
    @pytest.mark.parametrize(("content", "said"), NONSENSE)
    def test_one_clear_error(self, content: object, said: str) -> None:
        error = failure(says(content))
        assert f"answered with {said}" in error.message
        assert len(error.message) < 400

    def test_huge_numbers(self) -> None:
        assert "no JSON" in failure(says(b'{"choices": ' + b"9" * 5000 + b"}")).message
        logprobs = b'{"tokens": ["a"], "token_logprobs": [-1e999]}'
        content = b'{"choices": [{"text": "a", "logprobs": ' + logprobs + b"}]}"
        assert "log probabilities that are none" in failure(says(content)).message

    def test_what_could_steer_a_terminal_is_shown_as_text(self) -> None:
        assert "\x1b" not in failure(says(b"\x1b[2J")).message
        assert r"\x1b[2J" in failure(says(b"\x1b[2J")).message

    @pytest.mark.parametrize("sent", [b"hello\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a" * 70_000])
    def test_no_http(self, sent: bytes) -> None:
        assert "answered with no HTTP" in failure(lambda handler, _: _send(handler, sent)).message

    def test_a_service_that_hangs_up(self) -> None:
        assert "cannot be reached" in failure(lambda *_: None).message

    def test_an_answer_that_breaks_off(self) -> None:
        sent = b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"choices": ['
        error = failure(lambda handler, _: _send(handler, sent))
        assert "answered with no JSON" in error.message or "no HTTP" in error.message


def _send(handler: Handler, sent: bytes) -> None:
    handler.wfile.write(sent)
