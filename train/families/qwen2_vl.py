"""Qwen2-VL: all that ``train.families.base`` says, with a tower of other blocks."""

from __future__ import annotations

from typing import ClassVar

from train.families.base import Family


class Qwen2VL(Family):
    """Writes boxes in thousandths of the image's sides."""

    model_type: ClassVar[str] = "qwen2_vl"
    box_side: ClassVar[float | None] = 1000.0
