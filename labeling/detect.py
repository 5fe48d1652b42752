"""Grounding DINO through transformers: where are the things that a phrase names?

What it does differently from the published pipelines: each phrase is scored over its own token span (the mean of the span's
probabilities, as Grounding DINO's COCO evaluation does), never by decoding text; long phrase lists are chunked, never cut; a phrase that
is not in the image yields nothing instead of the whole image.

    detector = GroundingDinoDetector.from_pretrained("IDEA-Research/grounding-dino-base")
    found = detector.detect([image], [["black square", "red circle"]])[0]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

from labeling.boxes import Detection, suppress
from labeling.prompts import Prompt, build_prompts, normalize_phrase


class GroundingDinoDetector:
    """Any checkpoint of transformers' Grounding DINO family (``AutoModelForZeroShotObjectDetection`` with contrastive text tokens)."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        threshold: float = 0.25,
        nms_iou: float = 0.7,
        max_area: float = 0.95,
        batch_size: int = 8,
        name: str = "custom",
        revision: str | None = None,
    ) -> None:
        """``max_area``: a box that covers more of the image than this is an evasion, not a finding, unless it scores twice the
        threshold."""
        self.model, self.processor = model.eval(), processor
        self.threshold, self.nms_iou, self.max_area, self.batch_size = threshold, nms_iou, max_area, batch_size
        self.name, self.revision = name, revision

    @classmethod
    def from_pretrained(cls, name: str, *, revision: str | None = None, device: str = "cpu", **settings: Any) -> GroundingDinoDetector:
        model = AutoModelForZeroShotObjectDetection.from_pretrained(name, revision=revision).to(device)
        processor = AutoProcessor.from_pretrained(name, revision=revision)
        found = revision or getattr(model.config, "_commit_hash", None)
        return cls(model, processor, name=name, revision=found, **settings)

    def describe(self) -> dict[str, Any]:
        settings = {"threshold": self.threshold, "nms_iou": self.nms_iou, "max_area": self.max_area}
        return {"detector": self.name, "revision": self.revision, **settings}

    def detect(
        self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]], threshold: float | None = None
    ) -> list[list[Detection]]:
        """What each image shows of its own phrases, best first. Phrases come back as they were given.

        A phrase that the tokenizer knows nothing of is not found."""
        threshold = self.threshold if threshold is None else threshold
        jobs: list[tuple[int, Prompt]] = []
        originals: list[dict[str, str]] = []
        for i, wanted in enumerate(phrases):
            originals.append({clean: phrase for phrase in wanted if (clean := normalize_phrase(phrase))})
            ordered = sorted(originals[i])  # the order in which phrases are given decides nothing
            jobs += [(i, p) for p in build_prompts(self.processor.tokenizer, ordered, self.model.config.max_text_len)]
        found: list[list[Detection]] = [[] for _ in images]
        for batch in batches(jobs, lambda job: images[job[0]].size, self.batch_size):
            for (i, prompt), (boxes, scores) in zip(batch, self._score([(images[j], p) for j, p in batch]), strict=True):
                found[i] += self._keep(prompt, boxes, scores, images[i].size, threshold, originals[i])
        return [suppress(detections, self.nms_iou) for detections in found]

    @torch.inference_mode()
    def _score(self, batch: Sequence[tuple[Image.Image, Prompt]]) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Boxes (queries, 4) xyxy in pixels and scores (queries, phrases) of each image and prompt."""
        device = next(self.model.parameters()).device
        pixels = self.processor.image_processor([image for image, _ in batch], return_tensors="pt")
        inputs = {"pixel_values": pixels["pixel_values"], **_pad([p for _, p in batch])}
        outputs = self.model(**{name: value.to(device) for name, value in inputs.items()})
        probabilities, cxcywh = outputs.logits.float().sigmoid().cpu().numpy(), outputs.pred_boxes.float().cpu().numpy()
        results = []
        for row, boxes, mask, (image, prompt) in zip(probabilities, cxcywh, pixels["pixel_mask"], batch, strict=True):
            boxes = boxes / np.tile(np.array(image_share(mask), np.float32), 2)
            scores = np.stack([row[:, start:end].mean(1) for start, end in prompt.spans], 1)
            results.append((to_pixels(boxes, image.size), scores))
        return results

    def _keep(
        self,
        prompt: Prompt,
        boxes: NDArray[np.float32],
        scores: NDArray[np.float32],
        size: tuple[int, int],
        threshold: float,
        originals: dict[str, str],
    ) -> Iterator[Detection]:
        pixels = boxes.astype(np.float64).round(2)
        areas = (pixels[:, 2] - pixels[:, 0]) * (pixels[:, 3] - pixels[:, 1]) / (size[0] * size[1])
        needed = np.where(areas > self.max_area, 2 * self.threshold, threshold)
        for query, p in zip(*np.nonzero((scores >= needed[:, None]) & (areas > 0)[:, None]), strict=True):
            x0, y0, x1, y1 = pixels[query].tolist()
            yield Detection(originals[prompt.phrases[p]], (x0, y0, x1, y1), round(float(scores[query, p]), 4))


def _pad(prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
    length = max(len(p.input_ids) for p in prompts)
    ids = torch.tensor([[*p.input_ids, *[0] * (length - len(p.input_ids))] for p in prompts])
    mask = torch.tensor([[1] * len(p.input_ids) + [0] * (length - len(p.input_ids)) for p in prompts])
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}


def image_share(pixel_mask: torch.Tensor) -> tuple[float, float]:
    """How much of the width and of the height of a model's input is image; ``pixel_mask`` (height, width) is 0 elsewhere.

    All of it, as a rule. A processor with a ``pad_size`` shows its model every image within a frame of one size, and
    boxes are shares of the frame."""
    height, width = pixel_mask.shape
    return float(pixel_mask.any(0).sum()) / width, float(pixel_mask.any(1).sum()) / height


def batches(jobs: Sequence[Any], size_of: Callable[[Any], tuple[int, int]], count: int) -> Iterator[list[Any]]:
    """Groups of at most ``count`` jobs whose images have the same size, so that no padding changes a result."""
    groups: dict[Any, list[Any]] = {}
    for job in jobs:
        groups.setdefault(size_of(job), []).append(job)
    for group in groups.values():
        yield from (group[i : i + count] for i in range(0, len(group), count))


def to_pixels(cxcywh: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Normalised centre boxes to xyxy pixels inside the image (width, height)."""
    center, half = cxcywh[:, :2], cxcywh[:, 2:] / 2
    scale = np.array([*size, *size], np.float32)
    return np.clip(np.nan_to_num(np.concatenate([center - half, center + half], 1)) * scale, 0, scale)
