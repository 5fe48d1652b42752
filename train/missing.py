"""A reward that scores nothing teaches nothing, and the run would go on as if it did: noticed in
the step where it happens.

What cannot be scored for want of a label is no matter of the reward: a step whose rows all lack
facts is not silent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.console import say
from rewardlib.perception import is_judged
from rewardlib.sample import Sample
from train.batch import Group
from train.parallel import World
from train.settings import Settings


@dataclass(frozen=True)
class Heard:
    """What one process has of a reward in a step; small, since it travels between processes."""

    name: str
    could: int  # completions that hold all that the reward needs
    scored: int  # of these
    last_error: str  # why the last one was not scored, where the reward knows


def heed(
    groups: Sequence[Group],
    rewards: Sequence[Any],
    settings: Settings,
    world: World,
    step: int,
) -> dict[str, float]:
    """The step's figures about rewards that scored nothing at all, over all processes; mostly none.

    Raises ``ValueError`` where ``settings.missing`` says to stop, in every process alike."""
    parts = world.gather([_hear(reward, groups) for reward in rewards])
    figures = {}
    for name in dict.fromkeys(part.name for part in parts):
        mine = [part for part in parts if part.name == name]
        could, scored = sum(part.could for part in mine), sum(part.scored for part in mine)
        if scored or not could:
            continue
        why = [f": {part.last_error}" for part in mine if part.last_error]
        message = f"step {step + 1}: the reward {name} scored none of the {could} completions "
        message += "that it should have scored" + "".join(why[-1:])
        if settings.missing == "stop":
            raise ValueError(f"{message}. {_remedy(name)}")
        if world.main:
            say(f"WARNING  {message}")
        figures[f"rewards/{name}/silent"] = 1.0
    return figures


def _remedy(name: str) -> str:
    cause = "--judge, --judge-url or the key" if name == "perception" else "the data"
    flag = name.replace("_", "-")
    return f"Correct {cause}, leave the reward out with --{flag} 0, or do without it with --missing warn"


def _hear(reward: Any, groups: Sequence[Group]) -> Heard:
    could: list[bool] = []
    for group in groups:
        for sample, score in zip(group.samples, group.scores[reward.name], strict=True):
            if _could_score(reward.name, sample):
                could.append(score is not None)
    last_error = str(getattr(reward, "last_error", None) or "")
    return Heard(reward.name, len(could), sum(could), last_error)


def _could_score(name: str, sample: Sample) -> bool:
    """Whether a completion holds what a reward of the text needs."""
    if name == "accuracy":
        return bool(sample.answer and sample.answer.strip())
    return is_judged(sample) if name == "perception" else True
