"""The rewards that a run can give a weight. Adding one touches its own file, and its line here.

A reward says itself what it is called, which is also its flag (``--attention-contrast``), what has
to be measured for it (``needs``), what a row must hold (``requires``) and how it is made for a run
(``for_run``). See docs/rewards.md, "Write your own reward".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, make_dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from rewardlib.attention import AttentionContrast, CausalAttention
from rewardlib.boxes import BoxIoU
from rewardlib.caption import CaptionAnswer
from rewardlib.claims import Claims
from rewardlib.evidence import EvidenceSupport
from rewardlib.perception import Perception
from rewardlib.reflection import Reflection
from rewardlib.sample import Reward, Run
from rewardlib.text import Accuracy, Format, Repetition
from train.labels import Need

REWARDS: tuple[type[Any], ...] = (
    Accuracy,
    Format,
    Repetition,
    Perception,
    AttentionContrast,
    CausalAttention,
    EvidenceSupport,
    CaptionAnswer,
    Claims,
    Reflection,
    BoxIoU,
)

DEFAULTS = {"accuracy": 0.9, "format": 0.1}  # weights where no recipe says otherwise

if TYPE_CHECKING:

    class Weights:
        """The weight of every reward, by its name; 0: not used."""

        def __getattr__(self, name: str) -> float: ...

else:
    Weights = make_dataclass(
        "Weights",
        [
            (
                reward.name,
                Annotated[float, tyro.conf.arg(help=f"weight of the reward for {reward.about}")],
                field(default=DEFAULTS.get(reward.name, 0.0)),
            )
            for reward in REWARDS
        ],
        frozen=True,
        kw_only=True,
    )


def weights(**given: float) -> dict[str, Any]:
    """The weights of a recipe: of all rewards, those that are given, and 0 for the others."""
    unknown = given.keys() - {reward.name for reward in REWARDS}
    if unknown:
        raise ValueError(f"there is no reward {min(unknown)}")
    return {reward.name: given.get(reward.name, 0.0) for reward in REWARDS}


def flag_of(reward: Reward | type[Any]) -> str:
    """The flag that gives a reward its weight."""
    return f"--{reward.name.replace('_', '-')}"


def make_rewards(run: Run) -> list[Any]:
    """The rewards that a run gives a weight, made for it; ``ValueError`` where one lacks what it
    works with.
    """
    wanted = [reward for reward in REWARDS if getattr(run, reward.name)]
    if not wanted:
        flags = ", ".join(map(flag_of, REWARDS))
        raise ValueError(f"no reward has a weight, so nothing would be learnt; give one of {flags}")
    return [reward.for_run(run) if hasattr(reward, "for_run") else reward() for reward in wanted]


def needs_of(rewards: Sequence[Any]) -> list[Need]:
    """What rows must hold for these rewards."""
    return [
        Need(label, f"the {reward.name.replace('_', ' ')} reward", f"set {flag_of(reward)} 0")
        for reward in rewards
        for label in sorted(getattr(reward, "requires", ()))
    ]
