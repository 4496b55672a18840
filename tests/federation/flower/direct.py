"""Flower's grid in this process: the real ClientApp is called in a thread for each node."""

import itertools
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from threading import Event, Thread
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from consilience.federation.flower.app.relay import client_app, server_app
from consilience.federation.flower.app.relay.frames import connect, send

RUN = 7


class DirectGrid(Grid):
    """Nodes by number; each answers in a thread of its own, and messages are copied on the way."""

    def __init__(self, nodes: Mapping[int, Mapping[str, Any]]) -> None:
        self.nodes = dict(nodes)
        self.pushed: list[Message] = []
        self._replies: dict[str, Future[Message]] = {}
        self._count = itertools.count(1)
        self._pool = ThreadPoolExecutor(8)

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError

    def send_and_receive(self, *args: Any, **kwargs: Any) -> Iterable[Message]:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return [self._push(deepcopy(message)) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        done = [key for key in message_ids if self._replies[key].done()]
        return [deepcopy(self._replies.pop(key).result()) for key in done]

    def _push(self, message: Message) -> str:
        key = f"message-{next(self._count)}"
        message.metadata.__dict__["_message_id"] = key
        self.pushed.append(message)
        self._replies[key] = self._pool.submit(self._answer, message)
        return key

    def _answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        context = Context(RUN, node, dict(self.nodes[node]), RecordDict(), {}, 0)
        try:
            return client_app.app(message, context)
        except RuntimeError as error:
            return Message(Error(code=2, reason=str(error)), reply_to=message)


class DirectEngine:
    """Runs the real ServerApp's relay over a `DirectGrid`, in a thread; again where it ended."""

    def __init__(
        self, desk: Path, grid: DirectGrid, known: Mapping[int, str] | None = None
    ) -> None:
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN, 1
        self.desk, self.grid = desk, grid
        self.pinned = known or {}
        self.begun = 0
        self.cut = Event()
        self._thread: Thread | None = None

    def known(self) -> Mapping[int, str]:
        return self.pinned

    def tend(self, *, connected: bool) -> None:
        if self._thread is None or not self._thread.is_alive():
            self.begun += 1
            self._thread = Thread(target=self._relay, daemon=True)
            self._thread.start()

    def close(self) -> None:
        if self._thread is not None:
            self._thread.join(10)

    def _relay(self) -> None:
        desk, secret = connect(self.desk, 5)
        with desk:
            send(desk, {"kind": "hello", "secret": secret, "run": RUN})
            relay = server_app.Relay(self.grid, desk)
            while relay.step():
                if self.cut.is_set():
                    self.cut.clear()
                    return
