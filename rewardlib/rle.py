"""COCO's compressed run-length encoding of masks: ``{"size": [height, width], "counts": str}``. A mask is a bool array (height, width)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

Mask = NDArray[np.bool_]
MAX_PIXELS = 2**30  # a larger claimed size is damage, and would exhaust memory when decoded


def encode(mask: Mask) -> dict[str, Any]:
    """The encoding of a mask."""
    rle = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(v) for v in rle["size"]], "counts": rle["counts"].decode("ascii")}


def decode(rle: Mapping[str, Any]) -> Mask:
    """The mask of an encoding; ``ValueError`` if it is not one."""
    try:
        height, width = (int(v) for v in rle["size"])
        if not (height > 0 and width > 0 and height * width <= MAX_PIXELS):
            raise ValueError(f"its size is {height}x{width}")
        counts = rle["counts"].encode("ascii")
        if (covered := int(runs_of(counts).sum())) != height * width:
            raise ValueError(f"its runs have {covered} pixels, an image of {height}x{width} has {height * width}")
        mask = coco.decode({"size": [height, width], "counts": counts}).astype(bool)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"not a COCO run-length encoding: {str(rle)[:100]!r} ({error})") from error
    if mask.shape != (height, width):
        raise ValueError(f"run-length encoding decodes to {mask.shape}, but says {(height, width)}")
    return mask


def runs_of(counts: bytes) -> NDArray[np.int64]:
    """The lengths of the runs, of background and mask in turn; ``ValueError`` for what is no encoding of runs.

    pycocotools does not ask whether they fill the mask, and leaves what they do not reach as memory happens to be. A run is written as
    its difference to the run before the last, in pieces of five bits, lowest first; a sixth says that more follow.
    """
    signs = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if not len(signs) or signs.min() < 0 or signs.max() > 63 or signs[-1] & 32:
        raise ValueError("it holds a sign that no encoding has, or ends within a number")
    ends = np.flatnonzero(signs & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    pieces = ends - starts + 1
    if pieces.max() > 7:  # 35 bits: more than MAX_PIXELS
        raise ValueError("one of its runs is longer than any image")
    place = np.arange(len(signs)) - np.repeat(starts, pieces)
    runs = np.add.reduceat((signs & 31) << (5 * place), starts)
    runs -= np.where(signs[ends] & 16, 1 << (5 * pieces), 0)
    for first in (1, 2):  # the first three stand as they are
        runs[first::2] = np.cumsum(runs[first::2])
    if runs.min() < 0:
        raise ValueError("one of its runs has less than no length")
    return runs


def compressed(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """COCO's polygons or plain run lengths as an encoding; one that is compressed stays as it is. ``ValueError`` for other things."""
    if isinstance(segmentation, Mapping) and isinstance(segmentation["counts"], str):
        return dict(segmentation)
    # pycocotools draws what it is given, wherever that is, and takes the process with it where memory ends.
    if isinstance(segmentation, Mapping):
        runs, (rows, columns) = np.asarray(segmentation["counts"], np.float64), segmentation["size"]
        if runs.ndim != 1 or not (runs >= 0).all() or runs.sum() != rows * columns or rows * columns > MAX_PIXELS:
            raise ValueError(f"its run lengths do not fill an image of {rows}x{columns}")
    else:
        for polygon in segmentation:
            corners = np.asarray(polygon, np.float64)
            if corners.ndim != 1 or len(corners) < 6 or len(corners) % 2 or not (np.abs(corners) <= 4 * max(height, width)).all():
                raise ValueError(f"a polygon is not x, y of three corners or more, on or near the image of {height}x{width}")
    encoded = coco.frPyObjects(segmentation, height, width)
    merged = coco.merge(encoded) if isinstance(encoded, list) else encoded
    return {"size": list(merged["size"]), "counts": merged["counts"].decode("ascii")}


def from_box(box: Sequence[float], height: int, width: int) -> Mask:
    """The pixels whose centre lies in an xyxy box; at least one pixel for a box inside the image."""
    x0, y0, x1, y1 = box
    mask = np.zeros((height, width), bool)
    left, top = min(int(np.ceil(x0 - 0.5)), width - 1), min(int(np.ceil(y0 - 0.5)), height - 1)
    mask[max(0, top) : max(top + 1, int(np.ceil(y1 - 0.5))), max(0, left) : max(left + 1, int(np.ceil(x1 - 0.5)))] = True
    return mask
