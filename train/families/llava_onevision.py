"""LLaVA-OneVision in transformers' format (``llava-hf/llava-onevision-qwen2-7b-ov-hf``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from train.families.llava import Llava


class LlavaOnevision(Llava):
    """Writes boxes in shares of the image's sides."""

    model_type: ClassVar[str] = "llava_onevision"
    image_inputs: ClassVar[tuple[str, ...]] = ("pixel_values", "image_sizes", "batch_num_images")
    signs: ClassVar[tuple[str, ...]] = ("video_token",)

    def box_space(
        self, images: Mapping[str, Tensor], pictures: Sequence[Any]
    ) -> tuple[float, float]:
        """Shares of the sides."""
        return 1.0, 1.0
