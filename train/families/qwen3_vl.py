"""Qwen3-VL: features of several depths of the tower enter the language model, which transformers
does by itself.
"""

from __future__ import annotations

from typing import ClassVar

from train.families.base import Family


class Qwen3VL(Family):
    """Writes boxes in thousandths of the image's sides, and <think> only where its chat template
    begins with it.
    """

    model_type: ClassVar[str] = "qwen3_vl"
    box_side: ClassVar[float | None] = 1000.0
    writes_think: ClassVar[bool] = False
