"""Masks from boxes with SAM, through transformers.

segmenter = TransformersSegmenter.from_pretrained("facebook/sam-vit-base")
segments = segmenter.segment(image, [(10, 20, 60, 80)])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers import SamModel, SamProcessor

from labeling import masks
from labeling.info import ModelInfo
from labeling.segmenters.base import RawMask, Segment, segment_in_windows


class TransformersSegmenter:
    """Any ``SamModel`` checkpoint. The image is encoded once; boxes are prompted in chunks, so memory does not grow with their number."""

    def __init__(
        self, model: SamModel, processor: SamProcessor, *, boxes_at_once: int = 32, name: str = "custom", revision: str | None = None
    ) -> None:
        self.model, self.processor, self.boxes_at_once = model.eval(), processor, boxes_at_once
        self.name, self.revision = name, revision

    @classmethod
    def from_pretrained(cls, name: str, *, revision: str | None = None, device: str = "cpu", **settings: Any) -> TransformersSegmenter:
        model = SamModel.from_pretrained(name, revision=revision).to(device)
        processor = SamProcessor.from_pretrained(name, revision=revision)
        return cls(model, processor, name=name, revision=revision or getattr(model.config, "_commit_hash", None), **settings)

    def info(self) -> ModelInfo:
        return ModelInfo(self.name, self.revision, {"backend": "transformers"})

    def segment(self, image: Image.Image, boxes: Sequence[masks.Box]) -> list[Segment]:
        return segment_in_windows(self._prompt, image, boxes)

    @torch.inference_mode()
    def _prompt(self, image: Image.Image, boxes: Sequence[masks.Box]) -> list[RawMask]:
        device = self.model.device
        inputs = self.processor(images=image, input_boxes=[[list(map(float, b)) for b in boxes]], return_tensors="pt")
        embeddings = self.model.get_image_embeddings(inputs["pixel_values"].to(device))
        raw: list[RawMask] = []
        for start in range(0, len(boxes), self.boxes_at_once):
            chunk = inputs["input_boxes"][:, start : start + self.boxes_at_once].float().to(device)
            out = self.model(image_embeddings=embeddings, input_boxes=chunk, multimask_output=False)
            found = self.processor.post_process_masks(out.pred_masks.cpu(), inputs["original_sizes"], inputs["reshaped_input_sizes"])[0]
            raw += zip(found[:, 0].numpy(), out.iou_scores[0, :, 0].float().cpu().tolist(), strict=True)
        return raw
