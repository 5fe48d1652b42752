"""What the trainer asks of a model family, with the answers that Qwen's models give.

A family is made for one model. Its file overrides what differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Family:
    """A vision-language model and its processor, as its family has built them."""

    model: Any  # as transformers made it, without adapters
    processor: Any

    model_type: ClassVar[str]
    lora_targets: ClassVar[str] = (
        r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    )
    """the linear layers of the language model, as a pattern of module names"""
    image_inputs: ClassVar[tuple[str, ...]] = ("pixel_values", "image_grid_thw")
    """what the processor makes of images, and the model's forward is given"""
    writes_think: ClassVar[bool] = True
    """whether models of the family write <think> of their own accord, once they are rewarded for it
    """

    box_side: ClassVar[float | None] = None
    """what either side of an image measures in the boxes that such a model writes; None: its pixels
    as the model sees it
    """
    shares_prefix: ClassVar[bool] = True
    """whether completions can see one copy of their prompt (``train.shared_prefix``); else each is
    a sequence of its own (``train.separate``), which costs the prompt once for every completion
    """

    @property
    def backbone(self) -> Any:
        """The model without its language head."""
        return self.model.base_model

    @property
    def tower(self) -> nn.Module:
        """What makes features of images, with the layers that fit them to the language model."""
        tower: nn.Module = self.backbone.visual
        return tower

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer blocks of the tower and of the language model."""
        return [*self.backbone.visual.blocks, *self.model.get_decoder().layers]

    @property
    def image_token(self) -> int:
        """The id that stands for each part of an image, and whatever else the tower's features are
        put in the place of.
        """
        return int(self.model.config.image_token_id)

    @property
    def image_tokens(self) -> list[int]:
        """The ids that stand for images and videos in a prompt, and no text may hold."""
        config = self.model.config
        return [
            config.image_token_id,
            config.video_token_id,
            config.vision_start_token_id,
            config.vision_end_token_id,
        ]

    def positions(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The positions (3, P) of one prompt's tokens: time, height and width. Those of models that
        count in one direction are three times the same.
        """
        positions, _ = self.backbone.get_rope_index(
            inputs["input_ids"],
            mm_token_type_ids=inputs["mm_token_type_ids"],
            image_grid_thw=inputs.get("image_grid_thw"),
        )
        return positions[:, 0]

    def position_ids(self, positions: Tensor) -> Tensor:
        """Positions (3, B, T) as the forward takes them."""
        return positions

    def token_types(self, ids: Tensor) -> dict[str, Tensor]:
        """What a forward of whole sequences (B, T) is told of their tokens."""
        return {}

    def rotary(self, hidden: Tensor, positions: Tensor) -> Any:
        """The decoder's cosines and sines (B, T, D) at ``positions`` (B, T) behind the prompt,
        alike in all three directions.
        """
        return self.model.get_decoder().rotary_emb(hidden, positions.expand(3, -1, -1))

    def sizes_seen(
        self, images: Mapping[str, Tensor], pictures: Sequence[Any]
    ) -> list[tuple[int, int]]:
        """Width and height in pixels of what the model sees of every image.

        images: what the processor has made of them. pictures: as they were (PIL).
        """
        patch = self.model.config.vision_config.patch_size
        return [
            (columns * patch, rows * patch)
            for _, rows, columns in images["image_grid_thw"].tolist()
        ]

    def box_space(
        self, images: Mapping[str, Tensor], pictures: Sequence[Any]
    ) -> tuple[float, float]:
        """Width and height of the first image in the coordinates that such a model writes."""
        if self.box_side is not None:
            return self.box_side, self.box_side
        width, height = self.sizes_seen(images, pictures)[0]
        return float(width), float(height)

    def join_images(self, images: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """What the processor has made of several prompts' images, as if it were one prompt's."""
        names = dict.fromkeys(name for each in images for name in each)
        return {name: torch.cat([each[name] for each in images if each]) for name in names}

    @property
    def takes_features(self) -> bool:
        """Whether the forward takes images that are encoded already."""
        return "mm_encoder_outputs" in signature(self.backbone.forward).parameters

    def encode_images(self, images: Mapping[str, Tensor]) -> Any:
        """The tower's features of a prompt's images."""
        return self.backbone.get_image_features(**images, return_dict=True)

    def feature_inputs(self, features: Any) -> dict[str, Any]:
        """What the forward is given in place of images, once they are encoded."""
        return {"mm_encoder_outputs": {"image": features}}
