"""Signs that stand alone. A detector of text lines overlooks many a letter of a figure, since one
letter is no line; but such a letter is a small patch of ink with nothing around it.

This finds the patches; whether one is a letter is up to whoever reads it.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]  # xyxy in pixels

_LEAST_HEIGHT = 9
_MOST_OF_SIDE = 0.12  # of the picture's longer side
_ASPECT = (0.35, 1.6)  # width to height
_INKED = (0.1, 0.62)  # of its box; more is a dot, and less a line
_WORD_GAP = 0.4  # of the height
_MOST_PATCHES = 40  # more of them are texture

# What is hardly anything but a letter; the others are strokes and arcs as well, and letters only
# among letters of their height.
PLAIN = frozenset("ABDEFGHKMNPQRSWYZabdefghknqry23456789")
STROKES = frozenset("CIJLOTUVXcijloptuvxz017")
_AS_TALL = 0.25


def patches(pixels: NDArray[np.uint8], taken: Sequence[Box]) -> list[Box]:
    """Boxes of the patches that may be a sign, none of which touches what is taken."""
    height, width = pixels.shape[:2]
    _, _, stats, _ = cv2.connectedComponentsWithStats(_ink(pixels), connectivity=8)
    boxes = []
    for x, y, w, h, area in stats[1:].tolist():
        fits = _LEAST_HEIGHT <= h <= _MOST_OF_SIDE * max(height, width)
        looks = _within(w / h, _ASPECT) and _within(area / (w * h), _INKED)
        if fits and looks and not any(_touch((x, y, x + w, y + h), box) for box in taken):
            boxes.append((x, y, x + w, y + h))
    alone = [box for box in boxes if not any(_beside(box, other) for other in boxes)]
    return sorted(alone) if len(alone) <= _MOST_PATCHES else []


def crop(pixels: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """A patch with paper around it, as a reader of lines expects it."""
    x0, y0, x1, y1 = box
    room = (y1 - y0) // 4
    part = pixels[y0:y1, x0:x1]
    paper = np.median(_edge(pixels), axis=0).tolist()
    return np.asarray(
        cv2.copyMakeBorder(part, room, room, room, room, cv2.BORDER_CONSTANT, value=paper), np.uint8
    )


def is_as_tall(height: float, others: Sequence[float]) -> bool:
    """Whether something has the height of one of the others."""
    return any(abs(height - other) <= _AS_TALL * other for other in others)


def _ink(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """1 where it is unlike the paper, which is what the picture's edge mostly is."""
    gray = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    flag = cv2.THRESH_BINARY if np.median(_edge(gray)) < 128 else cv2.THRESH_BINARY_INV
    return np.asarray(cv2.threshold(gray, 0, 1, flag | cv2.THRESH_OTSU)[1], np.uint8)


def _edge(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])


def _within(value: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= value <= limits[1]


def _beside(one: Box, other: Box) -> bool:
    """Whether two patches are signs of one word."""
    gap = max(one[0], other[0]) - min(one[2], other[2])
    overlap = min(one[3], other[3]) - max(one[1], other[1])
    height = one[3] - one[1]
    return one != other and gap < _WORD_GAP * height and overlap > height / 2


def _touch(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
