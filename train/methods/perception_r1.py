"""Perception-R1: a judge checks the response against visual facts of the image (arXiv 2506.07218;
tongxiao2002/Perception-R1).

Only the rewards are new: ``rewardlib.perception.Perception`` and the penalty for repetition.
"""

from __future__ import annotations

from typing import ClassVar

from train.methods.base import Method
from train.recipe import Recipe
from train.rewards import weights


class PerceptionR1(Method):
    """Accuracy, and visual facts that a judge finds in the response."""

    name: ClassVar[str] = "perception-r1"
    about: ClassVar[str] = (
        "accuracy, and visual facts that a judge finds in the response (--judge, --judge-url)"
    )
    recipe: ClassVar[Recipe] = Recipe(
        **weights(accuracy=0.9, format=0.1, perception=0.7, repetition=1.0),
        template="perception-r1",
        clip_high=0.3,
        max_tokens=4096,
        weight_decay=1e-3,
        warmup=0.05,
    )
