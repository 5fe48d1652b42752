"""SAYO: a reward for attention on the labelled region (arXiv 2602.08241; Cratileo/Sayo).

Only the reward is new, ``rewardlib.attention.AttentionContrast``. As in the released code, it and
the format count once, and accuracy does not count at all.
"""

from __future__ import annotations

from typing import ClassVar

from train.methods.base import Method
from train.recipe import Recipe
from train.rewards import weights


class SAYO(Method):
    """Attention on the region, and format."""

    name: ClassVar[str] = "sayo"
    about: ClassVar[str] = "attention on the labelled regions, and format"
    recipe: ClassVar[Recipe] = Recipe(
        **weights(format=1.0, attention_contrast=1.0),
        template="answer",
        window=(60, 100),
        num_generations=16,
        max_tokens=110,
        top_p=0.9,
        kl=0.001,
        learning_rate=5e-6,
        schedule="linear",
        max_grad_norm=0.8,
    )
