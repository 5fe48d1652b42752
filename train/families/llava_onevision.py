"""LLaVA-OneVision in transformers' format (``llava-hf/llava-onevision-qwen2-7b-ov-hf``)."""

from __future__ import annotations

from typing import ClassVar

from train.families.llava import Llava


class LlavaOnevision(Llava):
    """Writes boxes in shares of the image's sides."""

    model_type: ClassVar[str] = "llava_onevision"
    box_side: ClassVar[float | None] = 1.0
    image_inputs: ClassVar[tuple[str, ...]] = ("pixel_values", "image_sizes", "batch_num_images")
    signs: ClassVar[tuple[str, ...]] = ("video_token",)
