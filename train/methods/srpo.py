"""SRPO: a second answer after a reflection earns most where it mends the first (arXiv 2506.01713;
SUSTechBruce/SRPO_MLLMs).

Only the reward is new, ``rewardlib.reflection.Reflection``; format counts half. The paper's first
stage, which teaches the form of a reflection from examples, is a supervised one and not here.
"""

from __future__ import annotations

from typing import ClassVar

from train.methods.base import Method
from train.recipe import Recipe
from train.rewards import weights


class SRPO(Method):
    """Thinks, answers, reflects, thinks and answers again."""

    name: ClassVar[str] = "srpo"
    about: ClassVar[str] = (
        "two answers with a reflection between them, rewarded for mending the first"
    )
    recipe: ClassVar[Recipe] = Recipe(
        **weights(format=0.5, reflection=1.0),
        template="reflection",
        max_tokens=2048,
        freeze_vision=True,
    )
