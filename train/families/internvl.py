"""InternVL 3 and 3.5 in transformers' format (``OpenGVLab/InternVL3-2B-hf``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import nn

from train.families.llava import Llava


class InternVL(Llava):
    """Writes boxes in thousandths of the image's sides."""

    model_type: ClassVar[str] = "internvl"
    box_side: ClassVar[float | None] = 1000.0
    signs: ClassVar[tuple[str, ...]] = ("start_image_token", "end_image_token", "video_token")

    @property
    def tower_blocks(self) -> Sequence[nn.Module]:
        blocks: Sequence[nn.Module] = self.backbone.vision_tower.encoder.layer
        return blocks
