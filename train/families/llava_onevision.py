"""LLaVA-OneVision in transformers' format (``llava-hf/llava-onevision-qwen2-7b-ov-hf``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import pad

from train.families.llava import Llava


class LlavaOnevision(Llava):
    """Writes boxes in shares of the image's sides."""

    model_type: ClassVar[str] = "llava_onevision"
    box_side: ClassVar[float | None] = 1.0
    image_inputs: ClassVar[tuple[str, ...]] = ("pixel_values", "image_sizes", "batch_num_images")
    signs: ClassVar[tuple[str, ...]] = ("video_token",)

    def join_images(self, images: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """With as many tiles each as the image that has most: the model leaves out what is none."""
        shown = [each for each in images if each]
        most = max((each["pixel_values"].shape[1] for each in shown), default=0)

        def filled(each: Mapping[str, Tensor]) -> dict[str, Tensor]:
            tiles = each["pixel_values"]
            rest = (0, 0, 0, 0, 0, 0, 0, most - tiles.shape[1])
            return {**each, "pixel_values": pad(tiles, rest)}

        return super().join_images([filled(each) for each in shown])
