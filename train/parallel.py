"""Several processes as one: prompts are dealt out, gradients added up, figures gathered. With one process all of it does nothing.

    accelerate launch --num_processes 8 -m train.grpo --data dataset     # or: torchrun --nproc-per-node 8 -m train.grpo --data dataset

Each loss term already holds the normaliser of the whole step, so gradients are summed, and the number of processes cannot change a result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.tracking import TensorBoardTracker
from accelerate.utils import broadcast_object_list, gather_object

from train.settings import Settings

T = TypeVar("T")


class World:
    """All processes of a run."""

    def __init__(self, settings: Settings) -> None:
        trackers = [TensorBoardTracker("tensorboard", settings.out) if name == "tensorboard" else name for name in settings.trackers]
        self.accelerator = Accelerator(cpu=settings.device == "cpu", log_with=trackers or None, project_dir=settings.out)
        self.rank, self.size = self.accelerator.process_index, self.accelerator.num_processes
        if settings.trackers:
            self.accelerator.init_trackers("sightline", config={name: _plain(value) for name, value in asdict(settings).items()})

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

    def gather(self, items: Sequence[T]) -> list[T]:
        """Everybody's items, on every process."""
        return list(items) if self.size == 1 else list(gather_object(list(items)))

    def total(self, number: int) -> int:
        return sum(self.gather([number]))

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()

    def agree(self, value: T) -> T:
        """The first process's value, on every process."""
        values = [value]
        if self.size > 1:
            broadcast_object_list(values)
        return values[0]

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace every gradient by the sum over all processes."""
        parameters = list(parameters)
        if self.size == 1 or not self.total(sum(p.grad is not None for p in parameters)):
            return
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        work = [torch.distributed.all_reduce(p.grad, async_op=True) for p in parameters if p.grad is not None]
        for handle in work:
            if handle is not None:
                handle.wait()

    def log(self, metrics: dict[str, float], step: int) -> None:
        """To the trackers."""
        self.accelerator.log(metrics, step=step)

    def close(self) -> None:
        self.accelerator.end_training()


def _plain(value: Any) -> Any:
    """A setting as trackers take it."""
    return value if isinstance(value, int | float | str | bool) else str(value) if isinstance(value, Path) else repr(value)
