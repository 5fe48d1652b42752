"""Several processes as one: prompts are dealt out, gradients added up, figures gathered. With one
process all of it does nothing.

    accelerate launch --num_processes 8 -m train.grpo --data dataset
    torchrun --nproc-per-node 8 -m train.grpo --data dataset

Each loss term already holds the normaliser of the whole step, so gradients are summed, and the
number of processes cannot change a result. With ``--shard`` the transformer blocks are spread by
FSDP2 (``train.sharding``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.tracking import TensorBoardTracker
from accelerate.utils import gather_object
from torch.distributed.tensor import DTensor

from train.settings import Settings, flags_of

T = TypeVar("T")


class World:
    """All processes of a run."""

    def __init__(
        self,
        device: str,
        out: Path | None = None,
        trackers: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """device: as a setting names it. out: the run's folder. trackers: where figures go besides;
        config: what is told to them of the run.
        """
        made = [
            TensorBoardTracker("tensorboard", out) if out and name == "tensorboard" else name
            for name in trackers
        ]
        self.accelerator = Accelerator(
            cpu=pick_device(device).type == "cpu", log_with=made or None, project_dir=out
        )
        self.rank, self.size = self.accelerator.process_index, self.accelerator.num_processes
        if trackers:
            plain = {name: _plain(value) for name, value in (config or {}).items()}
            self.accelerator.init_trackers("sightline", config=plain)

    @classmethod
    def of(cls, settings: Settings) -> World:
        """That of a training run."""
        return cls(settings.device, settings.out, settings.trackers, flags_of(settings))

    @property
    def main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """The part of ``items`` that is this process's."""
        return items[self.rank :: self.size]

    def gather_objects(self, items: Sequence[T]) -> list[T]:
        """Everybody's items, on every process."""
        return list(items) if self.size == 1 else list(gather_object(list(items)))

    def gather(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """The values of all parts (n,) of everybody, on every process, those of the first process
        first.
        """
        everybody = self.gather_objects([part.cpu() for part in parts])
        return (
            torch.cat(everybody).to(self.device)
            if everybody
            else torch.empty(0, device=self.device)
        )

    def total(self, number: int) -> int:
        return sum(self.gather_objects([number]))

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace every gradient by the sum over all processes; those of sharded weights are summed
        already.
        """
        parameters = [p for p in parameters if not isinstance(p, DTensor)]
        if self.size == 1 or not self.total(sum(p.grad is not None for p in parameters)):
            return
        for parameter in parameters:
            parameter.grad = (
                torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            )
        work = [
            torch.distributed.all_reduce(p.grad, async_op=True)
            for p in parameters
            if p.grad is not None
        ]
        for handle in work:
            if handle is not None:
                handle.wait()

    def clip_gradients(self, parameters: Iterable[torch.nn.Parameter], limit: float) -> float:
        """Scale the gradients so that their joint norm is at most ``limit``; returns the norm
        before.
        """
        grads = [p.grad for p in parameters if p.grad is not None]
        if not grads:
            return 0.0
        shards = [g.to_local() for g in grads if isinstance(g, DTensor)]
        squares = torch.stack(
            [
                _square(shards, self.device),
                _square([g for g in grads if not isinstance(g, DTensor)], self.device),
            ]
        )
        if shards:
            torch.distributed.all_reduce(squares[0])
        norm = squares.sum().sqrt()
        torch._foreach_mul_(
            [g.to_local() if isinstance(g, DTensor) else g for g in grads],
            (limit / (norm + 1e-6)).clamp(max=1.0),
        )
        return norm.item()

    def log(self, metrics: dict[str, float], step: int) -> None:
        """To the trackers."""
        self.accelerator.log(metrics, step=step)

    def close(self) -> None:
        """End together: a process that leaves while another still works was seen to abort."""
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()


def pick_device(name: str) -> torch.device:
    """``auto``: the GPU, if there is one. ``ValueError`` where one is wanted and there is none."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            f"--device {name}, but torch {torch.__version__} sees no GPU: check nvidia-smi, or "
            "take --device cpu"
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _square(grads: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
    """The squared joint norm."""
    if not grads:
        return torch.zeros((), device=device)
    return torch.stack(torch._foreach_norm(list(grads))).square().sum()


def _plain(value: Any) -> Any:
    """A setting as trackers take it."""
    if isinstance(value, int | float | str | bool):
        return value
    return str(value) if isinstance(value, Path) else repr(value)
