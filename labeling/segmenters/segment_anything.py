"""Masks from boxes with SAM, through Meta's ``segment-anything`` package."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from labeling import masks
from labeling.info import ModelInfo
from labeling.segmenters.base import RawMask, Segment, segment_in_windows


class SegmentAnythingSegmenter:
    """A checkpoint file of Meta's ``segment-anything`` package, for those who have one at hand: ``vit_h``, ``vit_l`` or ``vit_b``."""

    def __init__(self, model: torch.nn.Module, *, name: str = "custom") -> None:
        from segment_anything import SamPredictor

        self.predictor, self.name = SamPredictor(model.eval()), name

    @classmethod
    def from_checkpoint(cls, path: str, *, kind: str = "vit_h", device: str = "cpu") -> SegmentAnythingSegmenter:
        from segment_anything import sam_model_registry

        if kind not in sam_model_registry:
            raise ValueError(f"unknown segment-anything model {kind!r}; expected one of {', '.join(sam_model_registry)}")
        return cls(sam_model_registry[kind](checkpoint=path).to(device), name=f"{kind}:{path.rsplit('/', 1)[-1]}")

    def info(self) -> ModelInfo:
        return ModelInfo(self.name, settings={"backend": "segment-anything"})

    def segment(self, image: Image.Image, boxes: Sequence[masks.Box]) -> list[Segment]:
        return segment_in_windows(self._prompt, image, boxes)

    @torch.inference_mode()
    def _prompt(self, image: Image.Image, boxes: Sequence[masks.Box]) -> list[RawMask]:
        self.predictor.set_image(np.asarray(image.convert("RGB")))
        prompts = torch.tensor(np.asarray(boxes, dtype=np.float32), device=self.predictor.device)
        prompts = self.predictor.transform.apply_boxes_torch(prompts, (image.height, image.width))
        raw, scores, _ = self.predictor.predict_torch(None, None, boxes=prompts, multimask_output=False)
        self.predictor.reset_image()
        return list(zip(raw[:, 0].cpu().numpy(), scores[:, 0].tolist(), strict=True))
