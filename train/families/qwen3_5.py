"""Qwen3.5 (``Qwen/Qwen3.5-4B``): three of four layers have linear attention, whose state cannot be
shared by masks.

So completions are sequences of their own.
"""

from __future__ import annotations

from typing import ClassVar

from train.families.qwen3_vl import Qwen3VL


class Qwen3_5(Qwen3VL):  # noqa: N801  its name
    """As Qwen3-VL, but for its layers."""

    model_type: ClassVar[str] = "qwen3_5"
    shares_prefix: ClassVar[bool] = False
