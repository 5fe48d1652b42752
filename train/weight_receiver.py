"""The receiving end of ``--engine-weights broadcast``, in a vLLM server's workers.

vLLM loads it as a plugin wherever this package is installed beside it, and uses it where it is
started so (``train.serve --weights broadcast``). Needs vLLM 0.30 or newer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.model_loader.reload import (
    finalize_layerwise_reload,
    initialize_layerwise_reload,
)

from train.broadcast import Group

NAME = "sightline"


@dataclass
class Joining(WeightTransferInitInfo):
    """Where the trainer listens, and how many processes the group has with it."""

    address: str
    port: int
    size: int


@dataclass
class Coming(WeightTransferUpdateInfo):
    """What is going to be sent, in order."""

    names: list[str]
    dtypes: list[str]
    shapes: list[list[int]]


class WeightReceiver(WeightTransferEngine[Joining, Coming]):
    """One worker's end of the trainer's group."""

    init_info_cls = Joining
    update_info_cls = Coming
    group: Group | None = None

    def init_transfer_engine(self, init_info: Joining) -> None:
        """Join the trainer, which is rank 0."""
        here = self.parallel_config
        rank = 1 + here.data_parallel_index * here.world_size + here.rank
        device = torch.device(self.device)
        self.group = Group(init_info.address, init_info.port, rank, init_info.size, device)

    def start_weight_update(self) -> None:
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: Coming) -> None:
        assert self.group is not None
        told = zip(update_info.names, update_info.dtypes, update_info.shapes, strict=True)
        for name, dtype, shape in told:
            weight = torch.empty(shape, dtype=getattr(torch, dtype), device=self.device)
            self.group.broadcast(weight)
            self.model.load_weights([(name, weight)])

    def finish_weight_update(self) -> None:
        finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        self.group = None


def register() -> None:
    """What vLLM calls when it loads its plugins, once in every process."""
    if NAME not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(NAME, WeightReceiver)
