"""Faithful-MR1: attention on the evidence is rewarded where masking it matters (arXiv 2605.22072).

Only the reward is new, ``rewardlib.attention.CausalAttention``. The paper's formula and weights are
not public; these are ours. Its first stage, which anchors a <Focus> token to the evidence, is
``train.anchor``: start from its model.
"""

from __future__ import annotations

from typing import ClassVar

from train.methods.base import Method
from train.recipe import Recipe
from train.rewards import weights


class FaithfulMR1(Method):
    """Accuracy, and attention where erasing the evidence matters."""

    name: ClassVar[str] = "faithful-mr1"
    about: ClassVar[str] = (
        "accuracy, and attention where erasing the evidence matters (start from train.anchor's "
        "model)"
    )
    recipe: ClassVar[Recipe] = Recipe(**weights(accuracy=0.9, format=0.1, causal_attention=0.5))
