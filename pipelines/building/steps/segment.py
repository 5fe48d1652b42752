"""The mask of every region that has none.

On an image that the segmenter was never taught the mask is the box: what it draws there looks like a mask and is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from labeling import masks
from labeling.domain import Domain
from labeling.segmenters import Segment, Segmenter
from pipelines.building.steps.base import Rejection, Step
from pipelines.dataset.schema import Item, Ledger

OUT_OF_DOMAIN = "out_of_domain"  # flag of a region whose mask is the box for that reason


@dataclass(frozen=True)
class DrawMasks(Step):
    """domain: what the segmenter's checkpoint knows; everything without one."""

    segmenter: Segmenter
    domain: Domain | None = None
    stage: ClassVar[str] = "segment"

    def process(self, items: Sequence[Item], ledger: Ledger) -> list[Rejection | None]:
        bare = [[r for r in item.row["regions"] if r["mask"] is None] for item in items]
        known = [bool(regions) and self._knows(item) for item, regions in zip(items, bare, strict=True)]
        images = [item.image for item, is_known in zip(items, known, strict=True) if is_known]
        boxes = [[r["bbox"] for r in regions] for regions, is_known in zip(bare, known, strict=True) if is_known]
        drawn = iter(self.segmenter.segment(images, boxes))
        for item, regions, is_known in zip(items, bare, known, strict=True):
            pieces = next(drawn) if is_known else [_box(item, region) for region in regions]
            for region, piece in zip(regions, pieces, strict=True):
                _set_mask(region, piece)
                ledger.counts["masks_from_box"] += piece.source == "box"
            ledger.counts["masks"] += len(regions)
        return [None] * len(items)

    def _knows(self, item: Item) -> bool:
        return self.domain is None or self.domain.knows(item.image)


def _box(item: Item, region: dict[str, Any]) -> Segment:
    mask = masks.from_box(region["bbox"], item.image.height, item.image.width)
    return Segment(mask, 0.0, "box", (OUT_OF_DOMAIN,))


def _set_mask(region: dict[str, Any], piece: Segment) -> None:
    region["mask"] = masks.encode(piece.mask)
    region["mask_score"] = piece.score
    region["mask_source"] = piece.source
    region["flags"] = [*region["flags"], *piece.flags]
