"""Qwen3-VL: features of several depths of the tower enter the language model, which transformers
does by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from train.families.base import Family


class Qwen3VL(Family):
    """Writes boxes in thousandths of the image's sides, and <think> only where its chat template
    begins with it.
    """

    model_type: ClassVar[str] = "qwen3_vl"
    writes_think: ClassVar[bool] = False

    def box_space(
        self, images: Mapping[str, Tensor], pictures: Sequence[Any]
    ) -> tuple[float, float]:
        """Thousandths of the sides."""
        return 1000.0, 1000.0
