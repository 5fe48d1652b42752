"""A group of processes that one of them sends tensors to: the trainer to a vLLM server's workers,
by NCCL where they have GPUs and by Gloo elsewhere. It is apart from the process's own distributed
group, and both sides use this file.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
import torch.distributed

dist: Any = torch.distributed  # whose groups and stores are typed for their own functions only

PATIENCE = timedelta(seconds=600)


class Group:
    """One process's end of a group; rank 0 is the one that sends."""

    def __init__(self, address: str, port: int, rank: int, size: int, device: torch.device) -> None:
        """address, port: of rank 0, which listens there. Returns once all ``size`` are there."""
        self.device = device
        self.store = dist.TCPStore(address, port, size, is_master=rank == 0, timeout=PATIENCE)
        self.group = _group(dist.PrefixStore("sightline", self.store), rank, size, device)

    def broadcast(self, tensor: torch.Tensor) -> None:
        """Send a tensor, or fill it with what is sent; contiguous, on the group's device."""
        options = dist.BroadcastOptions()
        options.rootRank = 0
        options.rootTensor = 0
        self.group.broadcast([tensor], options).wait()


def _group(store: Any, rank: int, size: int, device: torch.device) -> Any:
    if device.type == "cuda":
        return dist.ProcessGroupNCCL(store, rank, size, dist.ProcessGroupNCCL.Options())
    return dist.ProcessGroupGloo(store, rank, size, PATIENCE)
