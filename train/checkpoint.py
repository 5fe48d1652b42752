"""Checkpoints that a killed run goes on from: written aside, then renamed, so that one is whole or
is not there.

Rollouts, row order and learning rate follow from the seed and from how far the run is, so weights,
optimizer and two counters are all the state there is.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from train.distributed import World
from train.folders import latest
from train.methods import METHODS
from train.policy import Policy
from train.settings import Settings, flags_of
from train.sharding import full_state, is_sharded, shard_state

# What a run may change when it goes on: how long, how fast, where, and what it shows; never what it
# computes.
FREE = {
    "out",
    "steps",
    "device",
    "micro_batch",
    "tokens_per_forward",
    "checkpointing",
    "save_every",
    "show_every",
    "trackers",
    "max_skipped",
    "judge_url",
    "engine_url",
    "missing",
}


# What settings were called when a checkpoint was written.
RENAMED = {"group": "num_generations", "updates": "num_iterations"}


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    step: int = 0  # finished steps
    prompts: int = 0  # prompts drawn from the data


def save(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    out: Path,
    settings: Mapping[str, str],
    world: World,
) -> Path:
    """Write the checkpoint of a finished step into a run's folder, and remove older ones.

    settings: those that decide what the run computes. All processes call it.
    """
    target = out / f"checkpoint-{progress.step}"
    weights = full_state(policy.model.state_dict()) if is_sharded(policy.model) else None
    state = {
        "optimizer": full_state(optimizer.state_dict()),
        **asdict(progress),
        "settings": dict(settings),
    }
    if world.main:
        try:
            _write(policy, weights, state, target)
        except OSError as error:
            raise OSError(
                f"{target} could not be written ({error}); make room and start again: the run goes "
                "on where it was"
            ) from error
        for old in out.glob("checkpoint-*"):
            if old != target:
                shutil.rmtree(old)
    world.wait()
    return target


def _write(
    policy: Policy, weights: dict[str, Any] | None, state: dict[str, Any], target: Path
) -> None:
    aside = target.with_name(target.name + ".tmp")
    shutil.rmtree(aside, ignore_errors=True)
    policy.model.save_pretrained(aside, state_dict=weights)
    policy.processor.save_pretrained(aside)
    torch.save(state, aside / "trainer.pt")
    shutil.rmtree(target, ignore_errors=True)
    os.replace(aside, target)


def restore(
    policy: Policy, optimizer: torch.optim.Optimizer, out: Path, settings: Mapping[str, str]
) -> Progress:
    """Load the optimizer of a run's newest checkpoint, whose weights the policy has been loaded
    from, and say how far it is; ``ValueError`` where the run was of other ``settings``.
    """
    checkpoint = latest(out)
    if checkpoint is None:
        return Progress()
    state: dict[str, Any] = torch.load(
        checkpoint / "trainer.pt", map_location=policy.device, weights_only=True
    )
    before = {RENAMED.get(name, name): value for name, value in state["settings"].items()}
    changed = [
        f"{name} was {before[name]}, now {settings[name]}"
        for name in settings
        if name in before and before[name] != settings[name]
    ]
    if changed:
        raise ValueError(
            f"{checkpoint} is of a run with other settings ({'; '.join(changed)}): give its own, "
            "or another --out"
        )
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    optimizer.load_state_dict(shard_state(state["optimizer"], parameters))
    return Progress(state["step"], state["prompts"])


def computed(settings: Settings) -> dict[str, str]:
    """The settings that decide what a run computes."""
    depends_on_steps = (
        settings.schedule != "constant"
        or 0 < settings.warmup < 1
        or any(METHODS[name].changes_on_the_way for name in settings.methods)
    )
    free = FREE - {"steps"} if depends_on_steps else FREE
    return {name: str(value) for name, value in flags_of(settings).items() if name not in free}
