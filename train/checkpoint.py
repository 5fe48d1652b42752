"""Checkpoints that a killed run goes on from: written aside, then renamed, so that one is whole or is not there.

Rollouts and row order follow from the seed and the step, so weights, optimizer and step number are all the state there is.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from train.policy import Policy
from train.settings import Settings


def latest(out: Path) -> Path | None:
    """The newest whole checkpoint in a run's folder."""
    found = sorted(out.glob("checkpoint-*[0-9]"), key=lambda path: int(path.name.rpartition("-")[2]))
    return found[-1] if found else None


def save(policy: Policy, optimizer: torch.optim.Optimizer, step: int, settings: Settings) -> Path:
    """Write the checkpoint of a finished step, and remove older ones."""
    target = settings.out / f"checkpoint-{step}"
    aside = target.with_name(target.name + ".tmp")
    shutil.rmtree(aside, ignore_errors=True)
    policy.model.save_pretrained(aside)
    policy.processor.save_pretrained(aside)
    torch.save({"optimizer": optimizer.state_dict(), "step": step, "data": settings.data}, aside / "trainer.pt")
    os.replace(aside, target)
    for old in settings.out.glob("checkpoint-*"):
        if old != target:
            shutil.rmtree(old)
    return target


def restore(policy: Policy, optimizer: torch.optim.Optimizer, checkpoint: Path, settings: Settings) -> int:
    """Load the optimizer of a checkpoint whose weights the policy has been loaded from; the step to go on with."""
    state: dict[str, Any] = torch.load(checkpoint / "trainer.pt", map_location=policy.device, weights_only=True)
    if state["data"] != settings.data:
        raise ValueError(f"{checkpoint} was trained on {state['data']}, not {settings.data}: choose another --out")
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])
