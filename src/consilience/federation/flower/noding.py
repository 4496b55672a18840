"""The process of a party's SuperNode: Flower's own, which runs no app but ours.

Flower can be told to run only apps that somebody trusted has signed. Here that somebody is this
process: with a key that it makes at its start and never writes down, it signs the app that is
installed on this machine, when it arrives, and nothing else. Where the hook below should fail to
take hold, no app is signed and none runs.

Started by `node` with one line of JSON on its standard input, which stays open: when it closes, the
party has gone, and so does this process.
"""

import contextlib
import json
import os
import signal
import sys
import traceback
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from threading import Thread
from time import time
from typing import Any

import flwr.supernode.start_client_internal as node_loop
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.supercore.fab import Fab
from flwr.supercore.primitives.asymmetric_ed25519 import create_message_to_sign
from flwr.supernode.cli import flower_supernode
from flwr.supernode.fleet_http_connection import http_request_response

from consilience.federation.flower.bundle import bundle, digest

_SIGNER = "fpk_consilience"

GetFab = Callable[[str, int], Fab]


def main() -> None:
    """Serve until told to stop."""
    os.umask(0o077)
    told = json.loads(sys.stdin.readline())
    Thread(target=_lifeline, daemon=True).start()
    key = Ed25519PrivateKey.generate()
    _trust(key, told["trusted"])
    connect = vetted(key, digest(bundle()), http_request_response)
    node_loop.http_request_response = connect  # type: ignore[attr-defined]
    sys.argv = ["flower-supernode", *told["arguments"], "--trusted-entities", told["trusted"]]
    try:
        flower_supernode()
    except Exception:  # noqa: BLE001 - the edge: Flower's other threads would keep it half alive
        traceback.print_exc()
    finally:
        os._exit(1)


def vetted(key: Ed25519PrivateKey, allowed: str, connect: Callable[..., Any]) -> Callable[..., Any]:
    """Flower's connection, in which only the app of this digest comes signed."""

    @contextlib.contextmanager
    def connection(*args: Any, **kwargs: Any) -> Iterator[tuple[Any, ...]]:
        with connect(*args, **kwargs) as calls:
            node, receive, send, get_run, get_fab, *rest = calls
            yield node, receive, send, get_run, _signing(key, allowed, get_fab), *rest

    return connection


def _signing(key: Ed25519PrivateKey, allowed: str, get_fab: GetFab) -> GetFab:
    def signed(fab_hash: str, run: int) -> Fab:
        fab = get_fab(fab_hash, run)
        own = digest(fab.content) == allowed
        return Fab(fab.hash_str, fab.content, _signature(key, fab) if own else {})

    return signed


def _signature(key: Ed25519PrivateKey, fab: Fab) -> dict[str, str]:
    now = int(time())
    signature = key.sign(create_message_to_sign(bytes.fromhex(digest(fab.content)), now))
    told = {"signed_at": now, "signature": urlsafe_b64encode(signature).decode("ascii")}
    return {"valid_license": "yes", _SIGNER: json.dumps(told)}


def _trust(key: Ed25519PrivateKey, path: str) -> None:
    """Tell Flower whose signature counts; JSON is YAML."""
    shown = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
    with open(path, "w", encoding="utf-8") as file:
        json.dump({_SIGNER: shown.decode("ascii")}, file)


def _lifeline() -> None:
    """End with whoever started this."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
