"""How new weights get to vLLM's servers: by a folder that both sides see, or by a broadcast.

--engine-weights folder       # the default: a checkpoint, which servers read; any machine
--engine-weights broadcast    # straight into their memory: NCCL between GPUs, Gloo elsewhere
"""

from __future__ import annotations

import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from torch import Tensor

from train.broadcast import Group
from train.engines.base import Processes
from train.engines.vllm import checkpoint_weights, weights_of
from train.policy import Policy

Way = Literal["folder", "broadcast"]


class Away(Exception):
    """A server that has not answered, or has other weights than it should."""


class Route(Protocol):
    """What a transport asks of a server (``train.engines.vllm_server.Server``)."""

    url: str

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any: ...

    def get(self, path: str) -> Any: ...

    def version(self) -> str | None: ...


class Transport(Protocol):
    """Takes the policy's weights as they are, and gives them to servers."""

    lasts: bool
    """whether a server that has lost its weights can be given them later"""

    def take(self) -> None:
        """All processes call it together."""
        ...

    def give(self, server: Route, version: str) -> None:
        """The main process calls it, for every server; ``version`` is what they are called.
        ``Away`` where the server has gone meanwhile.
        """
        ...

    def drop(self) -> None:
        """All servers have been given them."""
        ...


class ByFolder:
    """A checkpoint in a folder, whole or not there."""

    lasts = True

    def __init__(self, policy: Policy, world: Processes, folder: Path) -> None:
        self.policy, self.world, self.folder = policy, world, folder.resolve()

    def take(self) -> None:
        """As ``Transport`` says."""
        weights = dict(weights_of(self.policy))
        if not self.world.main:
            return
        model: Any = self.policy.model
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        aside = self.folder.with_name(f"{self.folder.name}.tmp")
        shutil.rmtree(aside, ignore_errors=True)
        base.save_pretrained(aside, state_dict=weights)
        shutil.rmtree(self.folder, ignore_errors=True)
        aside.rename(self.folder)

    def give(self, server: Route, version: str) -> None:
        """As ``Transport`` says."""
        arguments = {"method": "reload_weights", "kwargs": {"weights_path": str(self.folder)}}
        server.post("collective_rpc", arguments)

    def drop(self) -> None:
        """The folder stays, for servers that are started again."""


class ByBroadcast:
    """A group of this process and a server's workers, for every server. Weights are not kept: they
    are sent as they are taken.
    """

    lasts = False

    def __init__(self, policy: Policy, world: Processes) -> None:
        self.policy, self.world = policy, world
        self.groups: dict[str, tuple[Group, str]] = {}  # with the version that was given last
        self.weights: dict[str, Tensor] = {}
        self.pool = ThreadPoolExecutor(1)

    def take(self) -> None:
        """As ``Transport`` says."""
        self.weights = dict(checkpoint_weights(self.policy))

    def give(self, server: Route, version: str) -> None:
        """As ``Transport`` says. A server answers once it has all that it was told of, so it is
        asked in another thread.
        """
        group = self._group_with(server)
        weights = {name: values.detach().contiguous() for name, values in self.weights.items()}
        told = {
            "names": [*weights],
            "dtypes": [str(values.dtype).removeprefix("torch.") for values in weights.values()],
            "shapes": [[*values.shape] for values in weights.values()],
        }
        server.post("start_weight_update")
        received = self.pool.submit(server.post, "update_weights", {"update_info": told})
        try:
            for values in weights.values():
                group.broadcast(values.to(group.device))
        except RuntimeError as error:  # torch's, of a connection that broke
            raise Away(f"it has left while weights were sent: {error}") from error
        received.result()
        server.post("finish_weight_update", {})
        self.groups[server.url] = group, version

    def drop(self) -> None:
        """As ``Transport`` says: an adapter's have been merged into copies."""
        self.weights = {}

    def _group_with(self, server: Route) -> Group:
        """The group that is there already, unless the server has been started again since."""
        group, given = self.groups.pop(server.url, (None, None))
        return group if group is not None and server.version() == given else self._join(server)

    def _join(self, server: Route) -> Group:
        """A new group with the workers of a server."""
        size = 1 + int(server.get("get_world_size")["world_size"])
        address, port = _reachable_from(server.url), _free_port()
        where = {"address": address, "port": port, "size": size}
        joined = self.pool.submit(server.post, "init_weight_transfer_engine", {"init_info": where})
        group = Group(address, port, 0, size, self.policy.device)
        joined.result()
        return group


def _reachable_from(url: str) -> str:
    """This machine's address on the way to a server."""
    parts = urlsplit(url)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        way.connect((parts.hostname, parts.port or 80))  # sends nothing
        address: str = way.getsockname()[0]
        return address


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("", 0))
        port: int = found.getsockname()[1]
        return port
