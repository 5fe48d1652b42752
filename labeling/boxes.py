"""Boxes: what a detector finds, overlap, and non-maximum suppression. All boxes are xyxy in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image


@dataclass(frozen=True)
class Detection:
    """``bbox`` is xyxy in pixels of the image given; ``score`` in [0, 1]."""

    phrase: str
    bbox: tuple[float, float, float, float]
    score: float


class Detector(Protocol):
    threshold: float

    def detect(
        self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]], threshold: float | None = None
    ) -> list[list[Detection]]: ...

    def describe(self) -> dict[str, Any]: ...


def iou_matrix(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of xyxy boxes, (len(a), len(b))."""
    one, other = np.asarray(a, float).reshape(-1, 4), np.asarray(b, float).reshape(-1, 4)
    low, high = np.maximum(one[:, None, :2], other[None, :, :2]), np.minimum(one[:, None, 2:], other[None, :, 2:])
    inter = np.clip(high - low, 0, None).prod(2)
    areas = [np.clip(x[:, 2:] - x[:, :2], 0, None).prod(1) for x in (one, other)]
    return inter / np.maximum(areas[0][:, None] + areas[1][None, :] - inter, 1e-9)


def suppress(detections: Sequence[Detection], nms_iou: float, tie: float = 0.7, same: float = 0.5) -> list[Detection]:
    """Greedy non-maximum suppression, best first: what overlaps something better by more than ``nms_iou`` goes.

    One phrase is found in one place once: among its own findings the limit is ``same``, if that is lower. Two phrases may share a box
    ("square", "black square") only where their scores are close: the weaker at least ``tie`` of the stronger; otherwise the stronger
    phrase has explained the object."""
    order = sorted(detections, key=lambda d: (-d.score, d.phrase, d.bbox))
    overlap = iou_matrix([d.bbox for d in order], [d.bbox for d in order])
    kept: list[int] = []
    for i, candidate in enumerate(order):
        if not any(_explains(order[k], candidate, overlap[i, k], nms_iou, tie, same) for k in kept):
            kept.append(i)
    return [order[i] for i in kept]


def _explains(better: Detection, other: Detection, iou: float, nms_iou: float, tie: float, same: float) -> bool:
    """Whether a finding leaves nothing to find for another, which scores less."""
    if better.phrase == other.phrase:
        return iou > min(nms_iou, same)
    return iou > nms_iou and other.score < tie * better.score
