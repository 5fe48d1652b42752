"""What InternVL and LLaVA-OneVision have in common: positions in one direction, a tower with a
projector behind it, and images cut into tiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from train.families.base import Family


class Llava(Family):
    """Of the LLaVA kind."""

    image_inputs: ClassVar[tuple[str, ...]] = ("pixel_values",)
    signs: ClassVar[tuple[str, ...]] = ()
    """further tokens of images and videos, by their attribute of the processor"""

    @property
    def tower(self) -> nn.Module:
        return nn.ModuleList([self.backbone.vision_tower, self.backbone.multi_modal_projector])

    @property
    def blocks(self) -> list[nn.Module]:
        return [*self.tower_blocks, *self.model.get_decoder().layers]

    @property
    def tower_blocks(self) -> Sequence[nn.Module]:
        """The transformer blocks of the tower."""
        blocks: Sequence[nn.Module] = self.backbone.vision_tower.encoder.layers
        return blocks

    @property
    def image_tokens(self) -> list[int]:
        words = [getattr(self.processor, name) for name in self.signs]
        return [self.image_token, *self.processor.tokenizer.convert_tokens_to_ids(words)]

    def positions(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return torch.arange(inputs["input_ids"].shape[1]).expand(3, -1)

    def position_ids(self, positions: Tensor) -> Tensor:
        return positions[0]

    def rotary(self, hidden: Tensor, positions: Tensor) -> Any:
        return self.model.get_decoder().rotary_emb(hidden, positions)

    def sizes_seen(
        self, images: Mapping[str, Tensor], pictures: Sequence[Any]
    ) -> list[tuple[int, int]]:
        """Their own: tiles are cut from the image at about its size."""
        return [picture.size for picture in pictures]
