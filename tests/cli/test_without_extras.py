"""Whoever installed only what asking needs is told in one line what a command needs more.

Each command runs in a process of its own in which the packages of an extra cannot be imported, so
that nothing which another test imported hides one that comes too early.
"""

import json
from pathlib import Path

import pytest

from tests.cli.terminal import spawn

PROGRAM = """
import sys
for name in sys.argv.pop(1).split(","):
    sys.modules[name] = None
from consilience.cli.main import run
sys.exit(run())
"""

QUESTION = {"question": "When may visitors come?", "answers": ["14:30"]}
RUN = """
output: run
model: model
store: knowledge
data: {train: [data.jsonl]}
steps: 1
k: 1
"""
STUDENT = """
distil: {teacher: model}
objectives: {distil: 1.0}
"""
PARTY = """
name: one
state: state
store: knowledge
data: {train: [data.jsonl]}
"""
FEDERATION = """
output: federated
recipe: run.yaml
parties: [party.yaml]
expected: 1
quorum: 1
rounds: 1
"""


@pytest.fixture
def ready(room: Path) -> Path:
    """A working directory in which every command below would begin its work."""
    for name, text in {"run": RUN, "party": PARTY, "federation": FEDERATION}.items():
        (room / f"{name}.yaml").write_text(text, "utf-8")
    (room / "student.yaml").write_text(RUN + STUDENT, "utf-8")
    (room / "data.jsonl").write_text(json.dumps(QUESTION) + "\n", "utf-8")
    return room


@pytest.mark.parametrize(
    ("gone", "words", "extra"),
    [
        ("accelerate,peft,tensorboard", ("train", "run.yaml"), "train"),
        ("tensorboard", ("train", "run.yaml"), "train"),
        ("accelerate,peft,tensorboard", ("distil", "student.yaml"), "train"),
        ("accelerate,peft", ("federate", "simulate", "federation.yaml"), "train"),
        ("rouge_score", ("evaluate", "data.jsonl", "--model", "model"), "evaluation"),
        ("fastapi", ("serve", "--model", "model"), "serve"),
        ("mcp", ("serve", "--mcp", "--model", "model"), "serve,mcp"),
        ("psycopg,pgvector", ("publish", "postgresql://me@127.0.0.1:1/x"), "postgres"),
        ("elasticsearch", ("publish", "elasticsearch+http://127.0.0.1:1"), "elasticsearch"),
        ("opensearchpy", ("publish", "opensearch+http://127.0.0.1:1"), "opensearch"),
        ("qdrant_client", ("publish", "qdrant+http://127.0.0.1:1"), "qdrant"),
        ("pymilvus", ("publish", "milvus+http://127.0.0.1:1"), "milvus"),
        ("cryptography", ("federate", "keys", "make", "keys"), "federation"),
    ],
)
def test_the_line_that_installs_what_is_missing(
    ready: Path, gone: str, words: tuple[str, ...], extra: str
) -> None:
    done = spawn(gone, *words, "--json", program=PROGRAM)
    assert (done.code, done.document["error"]["kind"]) == (8, "dependency"), done
    assert done.document["error"]["hint"] == f"pip install 'consilience[{extra}]'"
