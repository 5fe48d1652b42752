"""Masks from boxes with SAM: through transformers by default, or Meta's ``segment-anything`` package.

Both backends answer the same call: an image and its boxes in, one cleaned mask per box out. A mask that contradicts its box (empty, or
hardly inside it) is replaced by the box itself, and ``source`` says so.

    segmenter = TransformersSegmenter.from_pretrained("facebook/sam-vit-base")
    segments = segmenter.segment(image, [(10, 20, 60, 80)])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


RawMask = tuple[NDArray[np.bool_], float]  # as the model gives it, with its own estimate of the IoU
Window = tuple[int, int, int, int]  # left, top, right, bottom


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


def segment_in_windows(
    prompt: Callable[[Image.Image, Sequence[masks.Box]], list[RawMask]], image: Image.Image, boxes: Sequence[masks.Box]
) -> list[Segment]:
    """Prompt a model for every box, each in its own window of the image, and finish the masks at full size."""
    segments: dict[int, Segment] = {}
    for (x, y, right, bottom), members in windows(image.size, boxes).items():
        inside = [(b[0] - x, b[1] - y, b[2] - x, b[3] - y) for b in (boxes[i] for i in members)]
        for i, (part, score) in zip(members, prompt(image.crop((x, y, right, bottom)), inside), strict=True):
            whole = np.zeros((image.height, image.width), bool)
            whole[y:bottom, x:right] = part
            segments[i] = finish(whole, score, boxes[i])
    return [segments[i] for i in range(len(boxes))]


def windows(size: tuple[int, int], boxes: Sequence[masks.Box]) -> dict[Window, list[int]]:
    """The windows to look through, each with the indices of its boxes: usually one, the whole image.

    SAM pads every image to a square, so of a strip four times as long as high it sees little but padding. Strips more than twice as long
    as high (or the reverse) are seen through square windows, half a window apart; a box belongs to the window that holds it most
    centrally, or, if none holds it whole, to the whole image.
    """
    width, height = size
    side, length = min(size), max(size)
    starts = [0] if length <= 2 * side else [*range(0, length - side, max(1, side // 2)), length - side]
    along = 0 if width >= height else 1
    chosen: dict[Window, list[int]] = {}
    for i, box in enumerate(boxes):
        low, high = box[along], box[along + 2]
        holding = [s for s in starts if s <= low and high <= s + side] if len(starts) > 1 else []
        if holding:
            start = min(holding, key=lambda s: abs(s + side / 2 - (low + high) / 2))
            window = (start, 0, start + side, side) if along == 0 else (0, start, side, start + side)
        else:
            window = (0, 0, width, height)
        chosen.setdefault(window, []).append(i)
    return chosen


def finish(raw: NDArray[np.bool_], score: float, box: masks.Box) -> Segment:
    """Clean a raw mask; fall back to the box where the two contradict each other."""
    mask, flags = masks.clean(raw, box)
    inside = masks.from_box(box, *raw.shape)
    area = np.count_nonzero(mask)
    if area == 0 or np.count_nonzero(mask & inside) < 0.5 * area or area < 0.05 * np.count_nonzero(inside):
        return Segment(inside, 0.0, "box", ("box_fallback",))
    return Segment(mask, round(float(np.clip(score, 0, 1)), 4), "sam", tuple(flags))
