"""Qwen2.5-VL: all that ``train.families.base`` says."""

from __future__ import annotations

from typing import ClassVar

from train.families.base import Family


class Qwen2_5VL(Family):  # noqa: N801  its name
    """Writes boxes in pixels of the image that it sees."""

    model_type: ClassVar[str] = "qwen2_5_vl"
