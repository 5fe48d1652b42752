"""Regions as a person left them in another tool, and what differs from the dataset's: corrections.

A region comes back under its own id, or, where the tool forgets ids, as what has its phrase and
most of its place. One that does not come back was rejected; one that nobody knows was added.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from labeling import masks
from labeling.boxes import iou_matrix
from labeling.facts import Role
from pipelines.reviewing.corrections import Box, Correction, CorrectionError
from pipelines.rows.coco import UNNAMED

Row = dict[str, Any]

SAME_PLACE = 0.5  # pixels: tools round, and store shares of the image's size
SAME_RIM, SAME_OUTLINE = 1, 3  # pixels: crops are rounded, and polygons made simple
SAME_OBJECT = 0.5  # IoU


@dataclass(frozen=True)
class Drawing:
    """A box, a mask or both, under the id it went with, if the tool kept that.

    outlined: the mask comes from polygons, which know no holes.
    """

    phrase: str
    bbox: Box | None = None
    mask: masks.Mask | None = None
    role: Role | None = None
    region: str | None = None
    outlined: bool = False

    def place(self) -> Box:
        """The box, or the mask's."""
        if self.bbox is None:
            assert self.mask is not None
            return box_of(self.mask)
        return self.bbox


def label(phrase: str | None) -> str:
    """A phrase as other tools' labels: one line, visible."""
    return " ".join("".join(c if c.isprintable() else " " for c in phrase or "").split()) or UNNAMED


def box_of(mask: masks.Mask) -> Box:
    x0, y0, x1, y1 = masks.bounding_box(mask)
    return (float(x0), float(y0), float(x1), float(y1))


def clipped(box: Sequence[float], row: Row, where: str) -> Box:
    """A box inside the row's image; tools let boxes reach a little beyond."""
    x0, x1 = (float(np.clip(x, 0, row["width"])) for x in (box[0], box[2]))
    y0, y1 = (float(np.clip(y, 0, row["height"])) for y in (box[1], box[3]))
    if not (x0 < x1 and y0 < y1):
        problem = f"{where}: the box {list(box)} lies outside the image"
        raise CorrectionError(problem, "draw it inside")
    return (x0, y0, x1, y1)


def differences(row: Row, drawings: Sequence[Drawing], entry: int) -> Iterator[Correction]:
    """What a person changed of a row's regions."""
    pairs = _matched(row["regions"], drawings)
    for region in row["regions"]:
        if region["region_id"] not in pairs.values():
            yield Correction(row["id"], "reject", region=region["region_id"], entry=entry)
    known = {region["region_id"]: region for region in row["regions"]}
    for n, drawing in enumerate(drawings):
        if n in pairs:
            yield from _changes(row["id"], known[pairs[n]], drawing, entry)
        else:
            yield _addition(row["id"], drawing, entry)


def _matched(regions: Sequence[Row], drawings: Sequence[Drawing]) -> dict[int, str]:
    """The region that each drawing is, by the drawing's number."""
    phrases = {r["region_id"]: label(r["phrase"]) for r in regions}
    pairs: dict[int, str] = {}
    for n, drawing in enumerate(drawings):
        same = drawing.region is not None and phrases.get(drawing.region) == drawing.phrase
        if same and drawing.region is not None and drawing.region not in pairs.values():
            pairs[n] = drawing.region
    overlap = iou_matrix([d.place() for d in drawings], [r["bbox"] for r in regions])
    for n, drawing in enumerate(drawings):
        for k, region in enumerate(regions):
            taken = n in pairs or region["region_id"] in pairs.values()
            if taken or phrases[region["region_id"]] != drawing.phrase:
                overlap[n, k] = 0
    while overlap.size and overlap.max() >= SAME_OBJECT:
        n, k = map(int, np.unravel_index(overlap.argmax(), overlap.shape))
        pairs[n] = regions[k]["region_id"]
        overlap[n, :], overlap[:, k] = 0, 0
    return pairs


def _changes(row: str, region: Row, drawing: Drawing, entry: int) -> Iterator[Correction]:
    name = region["region_id"]
    if drawing.role is not None and drawing.role != region["role"]:
        yield Correction(row, "role", region=name, role=drawing.role, entry=entry)
    old = masks.decode(region["mask"])
    redrawn = not _same_mask(old, drawing)
    moved = drawing.bbox is not None and not _same_box(drawing.bbox, region["bbox"])
    if moved and not redrawn and drawing.mask is not None:  # some tools make boxes of masks
        moved = not _same_box(drawing.place(), box_of(drawing.mask), 2 * SAME_PLACE)
    if redrawn and drawing.mask is not None:
        box = drawing.place() if moved else box_of(drawing.mask)
        yield _redraw(row, name, box, drawing.mask, entry)
    elif moved:
        yield _redraw(row, name, drawing.place(), None, entry)


def _redraw(row: str, name: str, box: Box, mask: masks.Mask | None, entry: int) -> Correction:
    drawn = None if mask is None else masks.encode(mask)
    return Correction(row, "redraw", region=name, bbox=_stored(box), mask=drawn, entry=entry)


def _addition(row: str, drawing: Drawing, entry: int) -> Correction:
    drawn = None if drawing.mask is None else masks.encode(drawing.mask)
    phrase, role = drawing.phrase, drawing.role or "unknown"
    box = _stored(drawing.place())
    return Correction(row, "add", phrase=phrase, bbox=box, role=role, mask=drawn, entry=entry)


def _stored(box: Box) -> Box:
    """Hundredths of a pixel are more than anybody draws; tools differ in what lies below."""
    x0, y0, x1, y1 = (round(v, 2) for v in box)
    return (x0, y0, x1, y1)


def _same_box(one: Sequence[float], other: Sequence[float], apart: float = SAME_PLACE) -> bool:
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) <= apart


def _same_mask(old: masks.Mask, drawing: Drawing) -> bool:
    """Whether a drawing's mask differs from the old one in its rim at most."""
    new = drawing.mask
    if new is None or new.shape != old.shape:
        return new is None
    if not drawing.outlined:
        return _within(old, new, SAME_RIM)
    return any(_within(mask, new, SAME_OUTLINE) for mask in (old, _without_holes(old)))


def _within(one: masks.Mask, other: masks.Mask, rim: int) -> bool:
    beyond = ((a & ~masks.dilate(b, rim)).any() for a, b in ((one, other), (other, one)))
    return not any(beyond)


def _without_holes(mask: masks.Mask) -> masks.Mask:
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros(mask.shape, np.uint8), outlines, -1, 1, cv2.FILLED)
    return np.asarray(filled, bool)
