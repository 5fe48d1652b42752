"""What the locators share that run a zero-shot detector here: thresholds, and which boxes count.

A detector answers an image and some phrases with boxes and a score for every box and phrase
(``Look``). What is kept of that, and what a box that covers everything is worth, is the same for
all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import AutoModelForZeroShotObjectDetection

from labeling import checkpoints
from labeling.batching import fill
from labeling.boxes import Detection, suppress
from labeling.checkpoints import FromCheckpoint
from labeling.facts import Kind
from labeling.info import ModelInfo
from labeling.locators.base import Sought
from rewardlib.rle import Mask

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Look:
    """What a model answers about one image and some of the phrases that are sought in it.

    image: its index.
    boxes: (queries, 4), xyxy in pixels of the image.
    scores: (queries, phrases), in [0, 1].
    masks: bool (queries, image height, image width), where the model draws.
    """

    image: int
    phrases: tuple[str, ...]
    boxes: Floats
    scores: Floats
    masks: NDArray[np.bool_] | None = None


class ZeroShotLocator(FromCheckpoint, ABC):
    """A checkpoint of transformers that finds what a phrase names.

    thresholds: the default threshold of each architecture, by its ``model_type``.
    """

    kinds: frozenset[Kind] = frozenset({"object", "attribute", "count", "relation"})
    thresholds: ClassVar[dict[str, float]]
    model_class: ClassVar[Any] = AutoModelForZeroShotObjectDetection

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        threshold: float | None = None,
        nms_iou: float = 0.7,
        max_area: float = 0.95,
        batch_size: int = 1,
        checkpoint: str = "custom",
        revision: str | None = None,
    ) -> None:
        """threshold: the lowest score of a detection; without one, the architecture's own.
        nms_iou: the overlap above which two boxes are the same object.
        max_area: a box that covers more of the image than this is an evasion, not a finding, unless
            it scores far above the threshold (``needed``).
        batch_size: images in one forward, no fewer and no more (``labeling.batching``).
        """
        super().__init__(model, processor, checkpoint=checkpoint, revision=revision)
        kind = model.config.model_type
        self.name = kind
        self.threshold = self.thresholds[kind] if threshold is None else threshold
        self.nms_iou, self.max_area, self.batch_size = nms_iou, max_area, batch_size

    def info(self) -> ModelInfo:
        settings = {
            "threshold": self.threshold,
            "nms_iou": self.nms_iou,
            "max_area": self.max_area,
            "dtype": checkpoints.dtype_name(self.model),
        }
        return ModelInfo(self.checkpoint, self.revision, settings)

    def locate(
        self,
        images: Sequence[Image.Image],
        sought: Sequence[Sequence[Sought]],
        threshold: float | None = None,
    ) -> list[list[Detection]]:
        """What each image shows of its own phrases, best first. A phrase that the tokenizer knows
        nothing of is not found. ``OverflowError`` where the dtype is too narrow for the model."""
        threshold = self.threshold if threshold is None else threshold
        phrases = [sorted({s.phrase for s in wanted}) for wanted in sought]
        found: list[list[Detection]] = [[] for _ in images]
        for look in self._look(images, phrases, threshold):
            checkpoints.require_numbers(look.scores, self.model)
            found[look.image] += self._kept(look, images[look.image].size, threshold)
        return [suppress(detections, self.nms_iou) for detections in found]

    def _pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """What the model sees of images that it sees in one size: (``batch_size``, 3, height,
        width)."""
        prepare = self.processor.image_processor
        seen = [prepare(image.convert("RGB"), return_tensors="pt") for image in images]
        return fill(torch.cat([one["pixel_values"] for one in seen]), self.batch_size)

    @abstractmethod
    def _look(
        self,
        images: Sequence[Image.Image],
        phrases: Sequence[Sequence[str]],
        threshold: float,
    ) -> Iterator[Look]:
        """Ask the model about every image's own phrases, which are distinct and sorted."""

    def _kept(self, look: Look, size: tuple[int, int], threshold: float) -> Iterator[Detection]:
        pixels = look.boxes.astype(np.float64).round(2)
        areas = (pixels[:, 2] - pixels[:, 0]) * (pixels[:, 3] - pixels[:, 1])
        covers = areas > self.max_area * size[0] * size[1]
        least = np.where(covers, needed(threshold, self.threshold), threshold)
        good = (look.scores >= least[:, None]) & (areas > 0)[:, None]
        for query, p in zip(*np.nonzero(good), strict=True):
            x0, y0, x1, y1 = pixels[query].tolist()
            score = round(float(look.scores[query, p]), 4)
            mask: Mask | None = None if look.masks is None else look.masks[query].copy()
            yield Detection(look.phrases[p], (x0, y0, x1, y1), score, mask, locator=self.name)


def needed(threshold: float, own: float) -> float:
    """The score of a box that covers the whole image: twice the locator's own threshold, or half
    the way from there to certainty where that is less."""
    return max(threshold, min(2 * own, (1 + own) / 2))


def to_pixels(cxcywh: Floats, frame: tuple[float, float], size: tuple[int, int]) -> Floats:
    """Centre boxes (n, 4), relative to a ``frame`` (width, height) that begins at the image's top
    left corner, as xyxy in pixels inside the image of ``size`` (width, height)."""
    center, half = cxcywh[:, :2], cxcywh[:, 2:] / 2
    scale = np.array([*frame, *frame], np.float32)
    boxes = np.nan_to_num(np.concatenate([center - half, center + half], 1)) * scale
    return np.clip(boxes, 0, np.array([*size, *size], np.float32))
