"""Masks from boxes with SAM: through transformers by default, or Meta's ``segment-anything`` package.

Both backends answer the same call: an image and its boxes in, one cleaned mask per box out. A mask that contradicts its box (empty, or
hardly inside it) is replaced by the box itself, and ``source`` says so.

    segmenter = TransformersSegmenter.from_pretrained("facebook/sam-vit-base")
    segments = segmenter.segment(image, [(10, 20, 60, 80)])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import SamModel, SamProcessor

from labeling import masks


@dataclass(frozen=True)
class Segment:
    """``mask`` is bool (image height, width); ``score`` the model's own estimate of its IoU; ``source`` what the mask is made of."""

    mask: masks.Mask
    score: float
    source: Literal["sam", "box"]
    flags: tuple[str, ...] = ()


class Segmenter(Protocol):
    def segment(self, image: Image.Image, boxes: Sequence[masks.Box]) -> list[Segment]: ...

    def describe(self) -> dict[str, Any]: ...


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

    def describe(self) -> dict[str, Any]:
        return {"segmenter": self.name, "revision": self.revision, "backend": "transformers"}

    @torch.inference_mode()
    def segment(self, image: Image.Image, boxes: Sequence[masks.Box]) -> list[Segment]:
        if not boxes:
            return []
        device = self.model.device
        inputs = self.processor(images=image, input_boxes=[[list(map(float, b)) for b in boxes]], return_tensors="pt")
        embeddings = self.model.get_image_embeddings(inputs["pixel_values"].to(device))
        segments: list[Segment] = []
        for start in range(0, len(boxes), self.boxes_at_once):
            chunk = inputs["input_boxes"][:, start : start + self.boxes_at_once].float().to(device)
            out = self.model(image_embeddings=embeddings, input_boxes=chunk, multimask_output=False)
            raw = self.processor.post_process_masks(out.pred_masks.cpu(), inputs["original_sizes"], inputs["reshaped_input_sizes"])[0]
            scores = out.iou_scores[0, :, 0].float().cpu().tolist()
            chosen = boxes[start : start + self.boxes_at_once]
            segments += [finish(m.numpy(), s, b) for m, s, b in zip(raw[:, 0], scores, chosen, strict=True)]
        return segments


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

    def describe(self) -> dict[str, Any]:
        return {"segmenter": self.name, "revision": None, "backend": "segment-anything"}

    @torch.inference_mode()
    def segment(self, image: Image.Image, boxes: Sequence[masks.Box]) -> list[Segment]:
        if not boxes:
            return []
        self.predictor.set_image(np.asarray(image.convert("RGB")))
        prompts = torch.tensor(np.asarray(boxes, dtype=np.float32), device=self.predictor.device)
        prompts = self.predictor.transform.apply_boxes_torch(prompts, (image.height, image.width))
        raw, scores, _ = self.predictor.predict_torch(None, None, boxes=prompts, multimask_output=False)
        self.predictor.reset_image()
        return [finish(m.numpy(), float(s), b) for m, s, b in zip(raw[:, 0].cpu(), scores[:, 0].cpu(), boxes, strict=True)]


def finish(raw: NDArray[np.bool_], score: float, box: masks.Box) -> Segment:
    """Clean a raw mask; fall back to the box where the two contradict each other."""
    mask, flags = masks.clean(raw, box)
    inside = masks.from_box(box, *raw.shape)
    area = np.count_nonzero(mask)
    if area == 0 or np.count_nonzero(mask & inside) < 0.5 * area or area < 0.05 * np.count_nonzero(inside):
        return Segment(inside, 0.0, "box", ("box_fallback",))
    return Segment(mask, round(float(np.clip(score, 0, 1)), 4), "sam", tuple(flags))
