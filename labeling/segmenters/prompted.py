"""What the segmenters of transformers share: encode images, prompt with boxes, draw masks.

They differ in what an encoded image is, and in what brings a mask back to the image's size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForMaskGeneration

from labeling import checkpoints, masks
from labeling.ahead import ahead
from labeling.batching import batches, fill
from labeling.checkpoints import FromCheckpoint
from labeling.info import ModelInfo
from labeling.segmenters.base import RawMask, Segment, View, finish_all, views

Encoded = dict[str, Any]  # the arguments of a forward that stand for an image


class PromptedSegmenter(FromCheckpoint, ABC):
    """A checkpoint of transformers that draws what a box holds. An image is encoded once; boxes are
    prompted in chunks, so memory does not grow with their number."""

    model_class: ClassVar[Any] = AutoModelForMaskGeneration

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        boxes_at_once: int = 32,
        batch_size: int = 1,
        checkpoint: str = "custom",
        revision: str | None = None,
    ) -> None:
        """batch_size: images that are encoded at once, no fewer and no more
        (``labeling.batching``)."""
        super().__init__(model, processor, checkpoint=checkpoint, revision=revision)
        self.boxes_at_once, self.batch_size = boxes_at_once, batch_size

    def info(self) -> ModelInfo:
        settings = {"backend": "transformers", "dtype": checkpoints.dtype_name(self.model)}
        return ModelInfo(self.checkpoint, self.revision, settings)

    def segment(
        self,
        images: Sequence[Image.Image],
        boxes: Sequence[Sequence[masks.Box]],
    ) -> list[list[Segment]]:
        """As ``Segmenter`` says; ``OverflowError`` where the dtype is too narrow for the model."""
        return finish_all(self._prompted(images, boxes), images, boxes)

    def _prompted(
        self,
        images: Sequence[Image.Image],
        boxes: Sequence[Sequence[masks.Box]],
    ) -> Iterator[tuple[View, list[RawMask]]]:
        def prepare(batch: list[View]) -> tuple[list[View], list[Mapping[str, Tensor]]]:
            return batch, [self._inputs(v.crop(images), v.inside(boxes)) for v in batch]

        for batch, inputs in ahead(prepare, batches(views(images, boxes), self.batch_size)):
            pixels = fill(torch.cat([one["pixel_values"] for one in inputs]), self.batch_size)
            encoded = self._encode_all(pixels)
            for row, (view, one) in enumerate(zip(batch, inputs, strict=True)):
                yield view, self._draw_all(self._row(encoded, row), one)

    def _inputs(self, image: Image.Image, boxes: list[list[float]]) -> Mapping[str, Tensor]:
        return self.processor(images=image, input_boxes=[boxes], return_tensors="pt")

    @torch.inference_mode()
    def _encode_all(self, pixels: Tensor) -> Encoded:
        return self._encode(pixels.to(self.model.device, self.model.dtype))

    @torch.inference_mode()
    def _draw_all(self, image: Encoded, inputs: Mapping[str, Tensor]) -> list[RawMask]:
        """The mask of every box, and the model's estimate of its IoU; computed in float32 from what
        the model drew."""
        boxes = inputs["input_boxes"].to(self.model.device, torch.float32)
        raw: list[RawMask] = []
        for start in range(0, boxes.shape[1], self.boxes_at_once):
            chunk = boxes[:, start : start + self.boxes_at_once]
            out = self.model(**image, input_boxes=chunk, multimask_output=False)
            drawn = self._at_full_size(out.pred_masks.float().cpu(), inputs)[:, 0].numpy()
            scores = out.iou_scores[0, :, 0].float().cpu()
            checkpoints.require_numbers(scores, self.model)
            raw += zip(drawn, scores.tolist(), strict=True)
        return raw

    @abstractmethod
    def _encode(self, pixels: Tensor) -> Encoded:
        """What stands for images (rows, 3, side, side) in a forward."""

    def _row(self, encoded: Encoded, row: int) -> Encoded:
        """One image of those that were encoded: a row of every tensor, and of those in lists."""
        return {name: _row(value, row) for name, value in encoded.items()}

    @abstractmethod
    def _at_full_size(self, drawn: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Bool (boxes, 1, height, width) of what the model drew for one image."""


def _row(value: Any, row: int) -> Any:
    if isinstance(value, Tensor):
        return value[row : row + 1]
    return [_row(part, row) for part in value]
