"""Qwen2-VL: all that ``train.families.base`` says, with a tower of other blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from train.families.base import Family


class Qwen2VL(Family):
    """Writes boxes in thousandths of the image's sides."""

    model_type: ClassVar[str] = "qwen2_vl"

    def box_space(
        self, images: Mapping[str, Tensor], pictures: Sequence[Any]
    ) -> tuple[float, float]:
        """Thousandths of the sides."""
        return 1000.0, 1000.0
