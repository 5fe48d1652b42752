"""Binary masks: cleaning and geometry. A mask is a bool array (height, width), encoded and drawn by
``rewardlib.rle``."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from rewardlib.rle import Mask as Mask
from rewardlib.rle import decode as decode
from rewardlib.rle import encode as encode
from rewardlib.rle import from_box as from_box

Box = Sequence[float]


def iou(a: Mask, b: Mask) -> float:
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 0.0


def dilate(mask: Mask, pixels: int) -> Mask:
    """The mask with all that lies within some pixels of it; by distances, which take the same time
    whatever the pixels."""
    if pixels <= 0 or not mask.any():
        return mask
    away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(away <= pixels)


def convex_hull(mask: Mask) -> Mask:
    """The smallest convex mask that covers a mask which is not empty."""
    points = cv2.findNonZero(mask.astype(np.uint8))
    return cv2.fillConvexPoly(np.zeros(mask.shape, np.uint8), cv2.convexHull(points), 1).astype(
        bool
    )


def clean(
    mask: Mask, box: Box, margin: float = 0.1, min_part: float = 0.1
) -> tuple[Mask, list[str]]:
    """A segmenter's raw mask made fit to use: clipped to its box plus a margin, small parts
    dropped, holes filled.

    ``margin`` is a share of the box's side, ``min_part`` of the largest part's area. Returns the
    mask and what was noticed about it ("fragmented": more than one part was left).
    """
    dx, dy = margin * (box[2] - box[0]) + 1, margin * (box[3] - box[1]) + 1
    cleaned = np.zeros_like(mask)
    # Only the window around the box is looked at: an image has many regions, and most of it is far
    # from each.
    rows = slice(max(0, int(box[1] - dy)), int(np.ceil(box[3] + dy)) + 1)
    columns = slice(max(0, int(box[0] - dx)), int(np.ceil(box[2] + dx)) + 1)
    inside = (mask & from_box((box[0] - dx, box[1] - dy, box[2] + dx, box[3] + dy), *mask.shape))[
        rows, columns
    ]
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        inside.astype(np.uint8), connectivity=8
    )
    if count <= 1:
        return cleaned, []
    areas = stats[1:, cv2.CC_STAT_AREA]
    large = 1 + np.flatnonzero(areas >= min_part * areas.max())
    cleaned[rows, columns] = _fill_holes(np.isin(labels, large))
    return cleaned, ["fragmented"] if len(large) > 1 else []


def _fill_holes(mask: Mask) -> Mask:
    """Holes smaller than a tenth of the mask are noise; larger ones are part of the shape (a ring,
    a handle)."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        (~mask).astype(np.uint8), connectivity=4
    )
    filled, area = mask.copy(), np.count_nonzero(mask)
    for i in range(1, count):
        x, y, w, h, size = stats[i]
        at_border = x == 0 or y == 0 or x + w == mask.shape[1] or y + h == mask.shape[0]
        if not at_border and size < 0.1 * area:
            filled[labels == i] = True
    return filled


def bounding_box(mask: Mask) -> tuple[int, int, int, int]:
    """The tight xyxy box of a mask that is not empty."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1
