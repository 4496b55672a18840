"""At a party: carries a request to the party's own agent, and its answer back.

Nothing of a model, a store or a question is here; the agent is the party's installed package.
"""

from pathlib import Path

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from .frames import Head, connect, receive, send

_CONNECT = 10.0  # seconds

app = ClientApp()


@app.query()
def forward(message: Message, context: Context) -> Message:
    """One request, one answer; the party that gives it is named beside it."""
    head, body = _ask(_agent(context), _kind(message), _body(message))
    if "refused" in head:
        raise RuntimeError(f"the agent of the party refused: {head['refused']}")
    content = RecordDict({"about": ConfigRecord({"party": str(head["party"])})})
    if body:
        content["body"] = ArrayRecord({"body": Array("uint8", (len(body),), "raw", body)})
    return Message(content, reply_to=message)


def _agent(context: Context) -> Path:
    """Its socket: of this node, or of this place in a simulation."""
    named = context.node_config.get("agent")
    if named:
        return Path(str(named))
    place = context.node_config["partition-id"]
    return Path(str(context.run_config["agents"])) / str(place) / "agent.sock"


def _ask(agent: Path, kind: str, body: bytes) -> tuple[Head, bytes]:
    try:
        connection, secret = connect(agent, _CONNECT)
        with connection:
            send(connection, {"secret": secret, "kind": kind}, body)
            answer = receive(connection)
    except OSError as error:
        raise RuntimeError(f"the agent of the party does not answer: {error.strerror}") from None
    if answer is None:
        raise RuntimeError("the agent of the party ended before it answered")
    return answer


def _kind(message: Message) -> str:
    return str(message.content.config_records["about"]["kind"])


def _body(message: Message) -> bytes:
    records = message.content.array_records
    return records["body"]["body"].data if "body" in records else b""
