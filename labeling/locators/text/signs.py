"""Where the signs of a line end.

A reader of lines says roughly where each sign is: what it takes for the left edge of a "3" may lie
in the middle of its stroke. Between two signs of a line there is mostly a gap without ink, and
there the one ends and the other begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

Polygon = NDArray[np.float64]  # (4, 2): upper left, upper right, lower right, lower left, in pixels

_ROOM = 0.06  # of the line's height: how far a sign reaches into a gap, whose edges are a bit inked
_MOST_TILT = 0.05  # of the line's length; the gaps of a line that rises more are not columns


def at_gaps(pixels: NDArray[np.uint8], line: Polygon, signs: Sequence[Polygon]) -> list[Polygon]:
    """The signs' places, with their sides at the gaps between them; of a line that is not level, as
    they are.

    pixels: (H, W, 3), any order of colours. signs: in the order in which they are read.
    """
    found = [sign.copy() for sign in signs]
    rises = max(abs(line[1, 1] - line[0, 1]), abs(line[2, 1] - line[3, 1]))
    if len(found) < 2 or rises > _MOST_TILT * np.ptp(line[:, 0]):
        return found
    corners = np.stack([line.min(0), np.ceil(line.max(0))]).clip(0).astype(int)
    (left, top), (right, bottom) = corners.tolist()
    if not (written := pixels[top:bottom, left:right]).size:  # it was read in the margin
        return found
    ink = _ink_of_columns(written)
    centres = [float(sign[:, 0].mean()) - left for sign in signs]
    for n, (one, other) in enumerate(pairwise(centres)):
        if (gap := _gap(ink, one, other)) is not None:
            room = min(_ROOM * (bottom - top), (gap[1] - gap[0]) / 2)
            found[n][[1, 2], 0] = left + gap[0] + room
            found[n + 1][[0, 3], 0] = left + gap[1] - room
    return found


def _gap(ink: NDArray[np.int64], start: float, end: float) -> tuple[int, int] | None:
    """The columns of least ink between two columns: the widest run of such, from and to."""
    columns = np.arange(max(0, int(np.ceil(start))), min(len(ink), int(np.ceil(end))))
    if not len(columns):
        return None
    least = columns[ink[columns] == ink[columns].min()]
    runs = np.split(least, np.flatnonzero(np.diff(least) > 1) + 1)
    widest = max(runs, key=len)
    return int(widest[0]), int(widest[-1]) + 1


def _ink_of_columns(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How many pixels of each column are unlike the paper, which is what lies above and below."""
    gray = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    dark = cv2.threshold(gray, 0, 1, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)[1]
    ink = 1 - dark if np.concatenate([dark[0], dark[-1]]).mean() > 0.5 else dark
    return np.asarray(ink.sum(axis=0), np.int64)
