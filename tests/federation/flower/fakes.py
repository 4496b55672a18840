"""A party that only echoes, for tests of what carries bytes."""

from collections.abc import Callable
from threading import Event


class Echo:
    """Answers `NAME: request`; may be told to wait first."""

    def __init__(self, name: str, change: Callable[[bytes], bytes] | None = None) -> None:
        self._name = name
        self._change = change or (lambda request: name.encode() + b": " + request)
        self.requests: list[bytes] = []
        self.free = Event()
        self.free.set()

    @property
    def name(self) -> str:
        return self._name

    def answer(self, request: bytes) -> bytes:
        self.requests.append(request)
        self.free.wait(30)
        return self._change(request)
