"""SmolVLM2 (``HuggingFaceTB/SmolVLM2-2.2B-Instruct``). Its processor needs the package
``num2words``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from train.families.llava import Llava


class SmolVLM(Llava):
    """Has not been taught to write boxes: those that it writes are read as pixels of the image."""

    model_type: ClassVar[str] = "smolvlm"
    lora_targets: ClassVar[str] = (
        r".*text_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    )
    image_inputs: ClassVar[tuple[str, ...]] = ("pixel_values", "pixel_attention_mask")
    signs: ClassVar[tuple[str, ...]] = ("fake_image_token", "global_image_token")

    @property
    def tower(self) -> nn.Module:
        return nn.ModuleList([self.backbone.vision_model, self.backbone.connector])

    @property
    def tower_blocks(self) -> Sequence[nn.Module]:
        blocks: Sequence[nn.Module] = self.backbone.vision_model.encoder.layers
        return blocks

    def join_images(self, images: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """All tiles behind each other: the model counts them by prompt."""
        shown = [each for each in images if each]
        return {
            name: torch.cat([each[name] for each in shown], dim=1)
            for name in self.image_inputs
            if shown
        }
