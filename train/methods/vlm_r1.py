"""VLM-R1: the box that the answer gives is to lie on the object that was asked for (arXiv
2504.07615; om-ai-lab/VLM-R1).

Only the reward is new, ``rewardlib.boxes.BoxIoU``, for rows that ask where something is. The region
is the gold.
"""

from __future__ import annotations

from typing import ClassVar

from train.methods.base import Method
from train.recipe import Recipe
from train.rewards import weights


class VLMR1(Method):
    """Overlap of the box that is answered with the region."""

    name: ClassVar[str] = "vlm-r1"
    about: ClassVar[str] = (
        "the box in the answer lying on the labelled region, for rows that ask where something is"
    )
    recipe: ClassVar[Recipe] = Recipe(
        **weights(format=1.0, box_iou=1.0),
        template="box",
        loss="grpo",
        kl=0.04,
        max_tokens=2048,
    )
