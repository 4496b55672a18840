"""Flower's administration, as far as a coordinator needs it, through the private door."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
)
from flwr.proto.federation_config_pb2 import SimulationConfig
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext

from consilience.errors import RemoteError
from consilience.federation.flower.bundle import digest
from consilience.federation.flower.guard import SECRET

_OVER = "finished"


class SilentError(RemoteError):
    """A SuperLink that does not answer; started again, it may."""


class _Knocking:
    """Says the secret of the private door."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        context.request.headers[SECRET.decode("ascii")] = self._secret
        return call_next(context)


class Control:
    """A SuperLink that is administered.

    Args:
        port: Of its private door.
        secret: Of the same.
    """

    def __init__(self, port: int, secret: str) -> None:
        self._client = ControlHttpClient.from_server_address(
            f"127.0.0.1:{port}",
            insecure=True,
            root_certificates=None,
            interceptors=[RuntimeVersionHttpInterceptor("flwr CLI"), _Knocking(secret)],
        )

    def register(self, pem: bytes, name: str) -> None:
        """Let a node with this public key connect."""
        with _answered("registering a party"):
            self._client.RegisterNode(RegisterNodeRequest(public_key=pem, name=name))

    def nodes(self) -> dict[bytes, int]:
        """The numbers of the nodes that may connect, by their public keys."""
        with _answered("listing the parties"):
            found = self._client.ListNodes(ListNodesRequest()).nodes_info
        return {node.public_key: node.node_id for node in found if node.status != "unregistered"}

    def begin(self, packed: bytes, simulated: SimulationConfig | None, agents: str) -> int:
        """Start the app; returns the number of the run."""
        request = StartRunRequest(
            fab=fab_to_proto(Fab(digest(packed), packed, {})),
            override_config=user_config_to_proto({"agents": agents} if agents else {}),
            override_federation_config=simulated,
        )
        with _answered("starting the relay"):
            return self._client.StartRun(request).run_id

    def over(self, run: int) -> str:
        """How a run ended; empty while it has not."""
        with _answered("asking for a run"):
            found = self._client.ListRuns(ListRunsRequest(run_id=run)).run_dict
        status = found[run].status
        if status.status != _OVER:
            return ""
        return f"{status.sub_status}: {status.details}" if status.details else status.sub_status

    def stop_all(self) -> None:
        """Stop all runs, such as those of a coordinator that was killed."""
        with _answered("stopping old runs"):
            for run, about in self._client.ListRuns(ListRunsRequest()).run_dict.items():
                if about.status.status != _OVER:
                    self._client.StopRun(StopRunRequest(run_id=run))

    def close(self) -> None:
        """Hang up."""
        self._client.close()


def simulation(places: int, cores: int) -> SimulationConfig:
    """So many parties on Ray, on so many cores."""
    return SimulationConfig(
        num_supernodes=places,
        client_resources_num_cpus=1,
        client_resources_num_gpus=0.0,
        init_args_num_cpus=cores,
        init_args_log_to_driver=False,
    )


@contextmanager
def _answered(doing: str) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        raise SilentError(
            f"the SuperLink did not answer, {doing}: {error}", hint="see link.log beside the run"
        ) from error
