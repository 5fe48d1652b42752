"""A reward that scores nothing teaches nothing, and the run would go on as if it did: noticed in the step where it happens.

What cannot be scored for want of a label is no matter of the reward: a step whose rows all lack facts is not silent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.console import say
from rewardlib.perception import is_judged
from rewardlib.sample import Sample
from train.group import Group
from train.parallel import World
from train.settings import Settings


@dataclass(frozen=True)
class Heard:
    """What one process has of a reward in a step; small, since it travels between processes."""

    name: str
    could: int  # completions that hold all that the reward needs
    scored: int  # of these
    last_error: str  # why the last one was not scored, where the reward knows


def heed(groups: Sequence[Group], rewards: Sequence[Any], settings: Settings, world: World, step: int) -> dict[str, float]:
    """The step's figures about rewards that scored nothing at all, over all processes: none, if all is well.

    Raises ``ValueError`` where ``settings.missing`` says to stop, in every process alike."""
    parts = world.gather([_hear(reward, groups) for reward in rewards])
    figures = {}
    for name in dict.fromkeys(part.name for part in parts):
        mine = [part for part in parts if part.name == name]
        could, scored = sum(part.could for part in mine), sum(part.scored for part in mine)
        if scored or not could:
            continue
        why = "".join(f": {words}" for words in [part.last_error for part in mine if part.last_error][-1:])
        message = f"step {step + 1}: the reward {name} scored none of the {could} completions that it should have scored{why}"
        if settings.missing == "stop":
            remedy = "correct --judge, --judge-url or the key" if name == "perception" else "correct the data"
            flag = name.replace("_", "-")
            raise ValueError(f"{message}. To go on, {remedy}; or leave the reward out with --{flag} 0, or do without with --missing warn")
        if world.main:
            say(f"WARNING  {message}")
        figures[f"rewards/{name}/silent"] = 1.0
    return figures


def _hear(reward: Any, groups: Sequence[Group]) -> Heard:
    samples = [sample for group in groups for sample in group.samples]
    scores = [score for group in groups for score in group.scores.get(reward.name, ())]
    known = [score is not None for sample, score in zip(samples, scores, strict=False) if _could_score(reward.name, sample)]
    return Heard(reward.name, len(known), sum(known), str(getattr(reward, "last_error", None) or ""))


def _could_score(name: str, sample: Sample) -> bool:
    """Whether a completion holds what a reward needs. Those that measure fail by themselves if they cannot, and have no scores here."""
    if name == "accuracy":
        return bool(sample.answer and sample.answer.strip())
    return is_judged(sample) if name == "perception" else True
