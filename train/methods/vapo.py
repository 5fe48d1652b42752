"""VAPO: what the policy has seen is still known to it while it reasons (arXiv 2509.25848;
xytian1008/VAPO).

Only the reward is new, ``rewardlib.claims.Claims``: the policy is asked behind parts of its own
reasoning whether claims about the image are right. The claims are the dataset's visual facts, and
those of another image; the paper has a model write them.
"""

from __future__ import annotations

from typing import ClassVar

from train.methods.base import Method
from train.recipe import Recipe
from train.rewards import weights


class VAPO(Method):
    """Accuracy, and claims about the image told right from wrong while reasoning."""

    name: ClassVar[str] = "vapo"
    about: ClassVar[str] = (
        "accuracy and format, and claims about the image told right from wrong while reasoning"
    )
    recipe: ClassVar[Recipe] = Recipe(
        **weights(accuracy=0.8, format=0.1, claims=0.1),
        template="boxed",
        filter_groups=True,
        clip_high=0.28,
        num_generations=5,
        max_tokens=2048,
        top_p=0.99,
        learning_rate=1e-5,
    )
