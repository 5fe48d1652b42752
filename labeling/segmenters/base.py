"""What every segmenter is: images and their boxes in, one cleaned mask per box out.

A mask that contradicts its box (empty, or hardly inside it) is replaced by the box itself, and
``source`` says so. A segmenter is one class in one file of this folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labeling import masks
from labeling.info import ModelInfo


@dataclass(frozen=True)
class Segment:
    """``mask`` is bool (image height, width); ``score`` the model's own estimate of its IoU;
    ``source`` what the mask is made of."""

    mask: masks.Mask
    score: float
    source: Literal["sam", "box"]
    flags: tuple[str, ...] = ()


RawMask = tuple[NDArray[np.bool_], float]  # as the model gives it, with its estimate of the IoU
Window = tuple[int, int, int, int]  # left, top, right, bottom
THINNEST = 64  # times as long as high


class Segmenter(Protocol):
    def segment(
        self,
        images: Sequence[Image.Image],
        boxes: Sequence[Sequence[masks.Box]],
    ) -> list[list[Segment]]:
        """The mask of every box of every image, in the boxes' order; boxes are xyxy in pixels. What
        an image's boxes hold does not depend on the other images, nor on the order of the boxes."""
        ...

    def info(self) -> ModelInfo:
        """For provenance."""
        ...


@dataclass(frozen=True)
class View:
    """An image, or a window of it, and the boxes that a model is prompted with there.

    image: the image's index.
    members: the indices of the boxes among the image's.
    """

    image: int
    window: Window
    members: tuple[int, ...]

    def crop(self, images: Sequence[Image.Image]) -> Image.Image:
        """What the model sees: the window, with a black rim at the right or below where it is so
        thin that nothing of it would be left at a model's size."""
        x, y, right, bottom = self.window
        least = -(-max(right - x, bottom - y) // THINNEST)
        seen = (x, y, max(right, x + least), max(bottom, y + least))
        return images[self.image].convert("RGB").crop(seen)

    def inside(self, boxes: Sequence[Sequence[masks.Box]]) -> list[list[float]]:
        """The members' boxes, in pixels of the window."""
        x, y = self.window[:2]
        wanted = [boxes[self.image][i] for i in self.members]
        return [[float(v - at) for v, at in zip(b, (x, y, x, y), strict=True)] for b in wanted]


def views(images: Sequence[Image.Image], boxes: Sequence[Sequence[masks.Box]]) -> Iterator[View]:
    """What to look at. The boxes of a view are sorted, so that their order changes nothing."""
    for i, (image, wanted) in enumerate(zip(images, boxes, strict=True)):
        for window, members in windows(image.size, wanted).items():
            yield View(i, window, tuple(sorted(members, key=lambda m: tuple(wanted[m]))))


def finish_all(
    prompted: Iterable[tuple[View, Sequence[RawMask]]],
    images: Sequence[Image.Image],
    boxes: Sequence[Sequence[masks.Box]],
) -> list[list[Segment]]:
    """The segments of all images, of what a model drew in each view."""
    found: list[dict[int, Segment]] = [{} for _ in images]
    for view, raw in prompted:
        image = images[view.image]
        x, y, right, bottom = view.window
        for i, (part, score) in zip(view.members, raw, strict=True):
            whole = np.zeros((image.height, image.width), bool)
            whole[y:bottom, x:right] = part[: bottom - y, : right - x]  # without the rim
            found[view.image][i] = finish(whole, score, boxes[view.image][i])
    return [[of_image[i] for i in range(len(of_image))] for of_image in found]


def windows(size: tuple[int, int], boxes: Sequence[masks.Box]) -> dict[Window, list[int]]:
    """The windows to look through, each with the indices of its boxes: usually one, all the image.

    SAM makes a square of every image, by padding or by squeezing, so of a strip four times as long
    as high it sees little. Strips more than twice as long as high (or the reverse) are seen through
    square windows, half a window apart; a box belongs to the window that holds it most centrally,
    or, if none holds it whole, to the whole image.
    """
    width, height = size
    side, length = min(size), max(size)
    starts = [0]
    if length > 2 * side:
        starts = [*range(0, length - side, max(1, side // 2)), length - side]
    along = 0 if width >= height else 1
    chosen: dict[Window, list[int]] = {}
    for i, box in enumerate(boxes):
        low, high = box[along], box[along + 2]
        holding = [s for s in starts if s <= low and high <= s + side] if len(starts) > 1 else []
        if holding:
            start = min(holding, key=lambda s: abs(s + side / 2 - (low + high) / 2))
            end = start + side
            window = (start, 0, end, side) if along == 0 else (0, start, side, end)
        else:
            window = (0, 0, width, height)
        chosen.setdefault(window, []).append(i)
    return chosen


def finish(raw: NDArray[np.bool_], score: float, box: masks.Box) -> Segment:
    """Clean a raw mask; fall back to the box where the two contradict each other."""
    mask, flags = masks.clean(raw, box)
    inside = masks.from_box(box, *raw.shape)
    area = np.count_nonzero(mask)
    held = np.count_nonzero(mask & inside)
    if area == 0 or held < 0.5 * area or area < 0.05 * np.count_nonzero(inside):
        return Segment(inside, 0.0, "box", ("box_fallback",))
    return Segment(mask, round(float(np.clip(score, 0, 1)), 4), "sam", tuple(flags))
