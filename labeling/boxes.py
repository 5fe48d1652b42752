"""Boxes: what a locator finds, overlap, and suppression. All boxes are xyxy in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rewardlib.rle import Mask


@dataclass(frozen=True)
class Detection:
    """One place in an image.

    bbox: xyxy in pixels of the image given.
    score: in [0, 1], by the locator's own measure.
    mask: bool (image height, width), where the locator draws one.
    text: what is written there, where the locator reads.
    flags: what is to be known about it: "inferred", say.
    locator: who found it.
    """

    phrase: str
    bbox: tuple[float, float, float, float]
    score: float
    mask: Mask | None = field(default=None, compare=False, repr=False)
    text: str | None = None
    flags: tuple[str, ...] = ()
    locator: str = ""


def iou_matrix(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of xyxy boxes, (len(a), len(b))."""
    one, other = np.asarray(a, float).reshape(-1, 4), np.asarray(b, float).reshape(-1, 4)
    low, high = (
        np.maximum(one[:, None, :2], other[None, :, :2]),
        np.minimum(one[:, None, 2:], other[None, :, 2:]),
    )
    inter = np.clip(high - low, 0, None).prod(2)
    areas = [np.clip(x[:, 2:] - x[:, :2], 0, None).prod(1) for x in (one, other)]
    return inter / np.maximum(areas[0][:, None] + areas[1][None, :] - inter, 1e-9)


def suppress(detections: Sequence[Detection], nms_iou: float, tie: float = 0.7) -> list[Detection]:
    """Greedy non-maximum suppression, best first. Two phrases may share a box ("square", "black
    square") only where their scores are close: the weaker at least ``tie`` of the stronger;
    otherwise the stronger phrase has explained the object."""
    order = sorted(detections, key=lambda d: (-d.score, d.phrase, d.bbox))
    overlap = iou_matrix([d.bbox for d in order], [d.bbox for d in order])
    kept: list[int] = []
    for i, candidate in enumerate(order):
        rivals = [order[k] for k in kept if overlap[i, k] > nms_iou]
        if all(r.phrase != candidate.phrase and candidate.score >= tie * r.score for r in rivals):
            kept.append(i)
    return [order[i] for i in kept]


def overlap_share(a: ArrayLike, b: ArrayLike) -> float:
    """The share of the smaller of two boxes that lies in the other; 1 where one holds the other."""
    one, other = np.asarray(a, float), np.asarray(b, float)
    sides = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None)
    smaller = min(np.prod(one[2:] - one[:2]), np.prod(other[2:] - other[:2]))
    return float(np.prod(sides) / max(smaller, 1e-9))
