"""Masks from boxes with SAM, through Meta's ``segment-anything`` package."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from labeling import masks
from labeling.info import ModelInfo
from labeling.segmenters.base import RawMask, Segment, finish_all, views


class SegmentAnythingSegmenter:
    """A checkpoint file of Meta's ``segment-anything`` package, for those who have one at hand:
    ``vit_h``, ``vit_l`` or ``vit_b``. An image at a time, in float32."""

    def __init__(self, model: torch.nn.Module, *, checkpoint: str = "custom") -> None:
        from segment_anything import SamPredictor

        self.predictor, self.checkpoint = SamPredictor(model.eval()), checkpoint

    @classmethod
    def from_checkpoint(
        cls,
        path: str,
        *,
        kind: str = "vit_h",
        device: str = "cpu",
    ) -> SegmentAnythingSegmenter:
        from segment_anything import sam_model_registry

        if kind not in sam_model_registry:
            known = ", ".join(sam_model_registry)
            raise ValueError(f"unknown segment-anything model {kind!r}; expected one of {known}")
        model = sam_model_registry[kind](checkpoint=path).to(device)
        return cls(model, checkpoint=f"{kind}:{path.rsplit('/', 1)[-1]}")

    def info(self) -> ModelInfo:
        return ModelInfo(self.checkpoint, settings={"backend": "segment-anything"})

    def segment(
        self,
        images: Sequence[Image.Image],
        boxes: Sequence[Sequence[masks.Box]],
    ) -> list[list[Segment]]:
        seen = views(images, boxes)
        prompted = ((v, self._prompt(v.crop(images), v.inside(boxes))) for v in seen)
        return finish_all(prompted, images, boxes)

    @torch.inference_mode()
    def _prompt(self, image: Image.Image, boxes: list[list[float]]) -> list[RawMask]:
        self.predictor.set_image(np.asarray(image))
        prompts = torch.tensor(boxes, dtype=torch.float32, device=self.predictor.device)
        size = image.height, image.width
        prompts = self.predictor.transform.apply_boxes_torch(prompts, size)
        raw, scores, _ = self.predictor.predict_torch(
            None,
            None,
            boxes=prompts,
            multimask_output=False,
        )
        self.predictor.reset_image()
        return list(zip(raw[:, 0].cpu().numpy(), scores[:, 0].tolist(), strict=True))
