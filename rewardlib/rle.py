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
        mask = coco.decode({"size": [height, width], "counts": rle["counts"].encode("ascii")}).astype(bool)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"not a COCO run-length encoding: {str(rle)[:100]!r} ({error})") from error
    if mask.shape != (height, width):
        raise ValueError(f"run-length encoding decodes to {mask.shape}, but says {(height, width)}")
    return mask


def from_box(box: Sequence[float], height: int, width: int) -> Mask:
    """The pixels whose centre lies in an xyxy box; at least one pixel for a box inside the image."""
    x0, y0, x1, y1 = box
    mask = np.zeros((height, width), bool)
    left, top = min(int(np.ceil(x0 - 0.5)), width - 1), min(int(np.ceil(y0 - 0.5)), height - 1)
    mask[max(0, top) : max(top + 1, int(np.ceil(y1 - 0.5))), max(0, left) : max(left + 1, int(np.ceil(x1 - 0.5)))] = True
    return mask
