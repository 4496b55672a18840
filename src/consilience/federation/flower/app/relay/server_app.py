"""At the coordinator: carries bytes between its resident process and Flower's grid.

Knows nodes by their number. Which party a node is, how long is waited and what is asked is decided
by the process at the other end of the socket, whose path is in the environment.
"""

import os
import select
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp

from .frames import Head, connect, receive, send

_CONNECT = 10.0  # seconds
_POLL = 0.1  # seconds
_LOOK = 2.0  # seconds between looks at which nodes are there

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Relay until the coordinator says that it is over, or has gone."""
    desk, secret = connect(Path(os.environ["CONSILIENCE_DESK"]), _CONNECT)
    with desk:
        send(desk, {"kind": "hello", "secret": secret, "run": context.run_id})
        relay = Relay(grid, desk)
        while relay.step():
            pass


@dataclass(slots=True)
class Relay:
    """Requests that wait for their reply, by the number that Flower gave them."""

    grid: Grid
    desk: socket.socket
    waiting: dict[str, int] = field(default_factory=dict)
    nodes: list[int] = field(default_factory=list)
    looked: float = 0.0

    def step(self) -> bool:
        """Take what has come from either side; False when it is over."""
        while select.select([self.desk], [], [], 0 if self.waiting else _POLL)[0]:
            frame = receive(self.desk)
            if frame is None or frame[0]["kind"] == "stop":
                return False
            self._take(*frame)
        self._look()
        self._collect()
        return True

    def _take(self, head: Head, body: bytes) -> None:
        ticket = int(head["ticket"])
        if head["kind"] == "forget":
            self.waiting = {key: kept for key, kept in self.waiting.items() if kept != ticket}
            return
        found = [key for key in self.grid.push_messages([_message(head, body)]) if key]
        if found:
            self.waiting[found[0]] = ticket
        else:
            send(self.desk, {"kind": "reply", "ticket": ticket, "error": "the node has gone"})

    def _look(self) -> None:
        if time.monotonic() - self.looked < _LOOK:
            return
        self.looked = time.monotonic()
        self.nodes = sorted(self.grid.get_node_ids())
        send(self.desk, {"kind": "nodes", "nodes": self.nodes})

    def _collect(self) -> None:
        if not self.waiting:
            return
        for reply in self.grid.pull_messages(list(self.waiting)):
            ticket = self.waiting.pop(reply.metadata.reply_to_message_id, None)
            if ticket is not None:
                send(self.desk, *_told(reply, ticket))
        time.sleep(_POLL)


def _message(head: Head, body: bytes) -> Message:
    content = RecordDict({"about": ConfigRecord({"kind": str(head["ask"])})})
    if body:
        content["body"] = ArrayRecord({"body": Array("uint8", (len(body),), "raw", body)})
    return Message(content, int(head["node"]), MessageType.QUERY, ttl=float(head["ttl"]))


def _told(reply: Message, ticket: int) -> tuple[Head, bytes]:
    head: Head = {"kind": "reply", "ticket": ticket, "node": reply.metadata.src_node_id}
    if reply.has_error():
        return head | {"error": f"{reply.error.reason} ({reply.error.code})"}, b""
    records = reply.content.array_records
    body = records["body"]["body"].data if "body" in records else b""
    return head | {"party": str(reply.content.config_records["about"]["party"])}, body
