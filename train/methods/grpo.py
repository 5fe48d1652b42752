"""GRPO: a completion's advantage is its reward against the others of its prompt (DeepSeekMath,
arXiv 2402.03300).

With the token mean of DAPO, which is also Perception-R1's and EasyR1's, and no divergence from the
model at the start.
"""

from __future__ import annotations

from typing import ClassVar

from train.methods.base import Method
from train.recipe import Recipe


class GRPO(Method):
    """Accuracy and format, and nothing else."""

    name: ClassVar[str] = "grpo"
    about: ClassVar[str] = "accuracy and format"
    recipe: ClassVar[Recipe] = Recipe()
