"""FSDP2 for the transformer blocks: their float32 weights, gradients and optimizer state are spread
over the processes.

    torchrun --nproc-per-node 8 -m train.grpo --data dataset --shard

A block's weights are gathered (in bfloat16 on a GPU) when a step first needs them, stay whole while
it samples and learns, and are let go after its update. So processes may run different forwards
(answers differ in length, rows in what they have) and meet only where gradients are summed: once in
every backward, of which all processes must make equally many. Embeddings, head and norms are kept
whole everywhere.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map

from train.policy import Policy


def shard(policy: Policy, processes: int) -> None:
    """Spread the blocks of the language model and of the vision tower."""
    mesh = init_device_mesh(policy.device.type, (processes,))
    half = (
        MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        if policy.device.type == "cuda"
        else None
    )
    for block in policy.family.blocks:
        module = fully_shard(
            block, mesh=mesh, reshard_after_forward=False, mp_policy=half or MixedPrecisionPolicy()
        )
        module.set_reshard_after_backward(False)
        module.set_gradient_divide_factor(1.0)  # a sum, as everywhere
        module.set_force_sum_reduction_for_comms(True)


def reshard(model: nn.Module) -> None:
    """After an update: the gathered weights are old."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def is_sharded(model: nn.Module) -> bool:
    """Whether some of the weights are spread."""
    return any(isinstance(module, FSDPModule) for module in model.modules())


def full_state(state: Any) -> Any:
    """A state dict with whole tensors, on the CPU. All processes must call it."""
    return tree_map(lambda x: x.full_tensor().cpu() if isinstance(x, DTensor) else x, state)


def shard_state(state: dict[str, Any], parameters: list[nn.Parameter]) -> dict[str, Any]:
    """An optimizer's state dict with whole tensors as that of sharded ``parameters``, in the
    optimizer's order.
    """

    def spread(value: Any, like: nn.Parameter) -> Any:
        whole: Any = like
        wanted = (
            isinstance(like, DTensor) and isinstance(value, Tensor) and value.shape == like.shape
        )
        return (
            distribute_tensor(value.to(like.device), whole.device_mesh, whole.placements)
            if wanted
            else value
        )

    spread_state = {
        i: {name: spread(value, parameters[i]) for name, value in entry.items()}
        for i, entry in state["state"].items()
    }
    return {**state, "state": spread_state}
