"""The process of the SuperLink: Flower's own service, behind our doors.

Started by `link` with one line of JSON on its standard input, which stays open: when it closes, the
coordinator has gone, and so does this process. Says on its standard output, in one line of JSON, on
which port of loopback its private door is.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from threading import Thread
from typing import Any

import uvicorn
from flwr.common.constant import ISOLATION_MODE_PROCESS, TRANSPORT_TYPE_GRPC_RERE
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.main import create_app

from consilience.federation.flower.guard import App, behind, private_door, public_door

_FAREWELL = 3  # seconds that open requests get at the end
_LOOPBACK = "127.0.0.1"


class _Server(uvicorn.Server):
    """One of two servers in a process, which handles signals itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def main() -> None:
    """Serve until told to stop."""
    os.umask(0o077)
    told = json.loads(sys.stdin.readline())
    Thread(target=_lifeline, daemon=True).start()
    asyncio.run(_serve(told))


def _lifeline() -> None:
    """End with whoever started this."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


async def _serve(told: dict[str, Any]) -> None:
    app: App = create_app(_config(told), SuperLinkLifespan)
    private, listener = _private(app, told["secret"])
    servers = [private]
    running = [asyncio.create_task(private.serve(sockets=[listener]))]
    while not private.started and not running[0].done():
        await asyncio.sleep(0.05)
    if told["public"]:
        public, outside = _public(app, told["public"], told["keys"])
        servers.append(public)
        running.append(asyncio.create_task(public.serve(sockets=[outside])))
    _stop_on_signals(servers)
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)  # noqa: T201 - the answer
    await asyncio.gather(*running)


def _config(told: dict[str, Any]) -> SuperLinkLifespanConfig:
    """Flower's settings: no gRPC, no helper of its own, no installing, nothing but what we open."""
    return SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host=_LOOPBACK,
        port=0,
        insecure=True,
        certificates=None,
        superexec_auth_secret=told["secret"].encode("ascii"),
        authn_plugin=NoOpControlAuthnPlugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=told["keys"] is not None,
        fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
        fleet_api_address=None,
        simulation=told["public"] is None,
        ssl_ca_certfile=None,
        ssl_certfile=None,
        ssl_keyfile=None,
        database=told["database"],
        isolation=ISOLATION_MODE_PROCESS,
        runtime_dependency_install=False,
    )


def _private(app: App, secret: str) -> tuple[_Server, socket.socket]:
    listener = socket.create_server((_LOOPBACK, 0))
    return _server(behind(app, private_door(secret)), lifespan="on"), listener


def _public(
    app: App, told: dict[str, Any], keys: list[str] | None
) -> tuple[_Server, socket.socket]:
    allowed = None if keys is None else frozenset(key.encode() for key in keys)
    family = socket.AF_INET6 if ":" in told["host"] else socket.AF_INET
    listener = socket.create_server((told["host"], told["port"]), family=family)
    secured = {"ssl_certfile": told["certificate"], "ssl_keyfile": told["key"]}
    return _server(behind(app, public_door(allowed)), lifespan="off", **secured), listener


def _server(app: App, **more: Any) -> _Server:
    return _Server(
        uvicorn.Config(
            app=app,
            access_log=False,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=_FAREWELL,
            **more,
        )
    )


def _stop_on_signals(servers: list[_Server]) -> None:
    def stop() -> None:
        for server in servers:
            server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)


if __name__ == "__main__":
    main()
