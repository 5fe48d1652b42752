"""A reward that scores nothing teaches nothing, and the run would go on as if it did: noticed in
the step where it happens.

What cannot be scored for want of a label is no matter of the reward: a step whose rows all lack
facts is not silent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rewardlib.console import say
from rewardlib.sample import Sample
from train.batch import Group
from train.distributed import World
from train.rewards import flag_of
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

    Raises ``ValueError`` where ``settings.missing`` says to stop, in every process alike.
    """
    parts = world.gather_objects([_hear(reward, groups) for reward in rewards])
    by_name = {reward.name: reward for reward in rewards}
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
            raise ValueError(f"{message}. {_remedy(by_name[name])}")
        if world.main:
            say(f"WARNING  {message}")
        figures[f"rewards/{name}/silent"] = 1.0
    return figures


def _remedy(reward: Any) -> str:
    cause = getattr(reward, "source", "the data")
    remedies = (
        f"leave the reward out with {flag_of(reward)} 0, or do without it with --missing warn"
    )
    return f"Correct {cause}, {remedies}"


def _hear(reward: Any, groups: Sequence[Group]) -> Heard:
    could: list[bool] = []
    for group in groups:
        for sample, score in zip(group.samples, group.scores[reward.name], strict=True):
            if _expects(reward, sample):
                could.append(score is not None)
    last_error = str(getattr(reward, "last_error", None) or "")
    return Heard(reward.name, len(could), sum(could), last_error)


def _expects(reward: Any, sample: Sample) -> bool:
    """Whether a completion holds what a reward needs, so that a score is to be expected."""
    if hasattr(reward, "expects"):
        return bool(reward.expects(sample))
    return all(
        getattr(sample, _FIELDS[label])
        for label in getattr(reward, "requires", ())
        if label in _FIELDS
    )


# of a sample, by label
_FIELDS = {
    "answer": "answer",
    "annotations": "annotations",
    "regions": "regions",
    "image": "images",
}
