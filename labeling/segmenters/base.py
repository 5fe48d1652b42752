"""What every segmenter is: an image and its boxes in, one cleaned mask per box out.

A mask that contradicts its box (empty, or hardly inside it) is replaced by the box itself, and ``source`` says so. A segmenter is one class
in one file of this folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labeling import masks
from labeling.info import ModelInfo


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

    def info(self) -> ModelInfo: ...


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
