"""The mask of every region that has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from labeling import masks
from labeling.segmenters import Segment, Segmenter
from pipelines.building.steps.base import Rejection, Step
from pipelines.dataset.schema import Item, Ledger


@dataclass(frozen=True)
class Draw(Step):
    segmenter: Segmenter
    stage: ClassVar[str] = "segment"

    def process(self, items: Sequence[Item], ledger: Ledger) -> list[Rejection | None]:
        bare = [[r for r in item.row["regions"] if r["mask"] is None] for item in items]
        boxes = [[r["bbox"] for r in regions] for regions in bare]
        pieces = self.segmenter.segment([item.image for item in items], boxes)
        for regions, drawn in zip(bare, pieces, strict=True):
            for region, piece in zip(regions, drawn, strict=True):
                _set_mask(region, piece)
                ledger.counts["masks_from_box"] += piece.source == "box"
            ledger.counts["masks"] += len(regions)
        return [None] * len(items)


def _set_mask(region: dict[str, Any], piece: Segment) -> None:
    given = region["mask_source"] == "given"
    region["mask"] = masks.encode(piece.mask)
    region["mask_score"] = piece.score
    region["mask_source"] = "given" if given else piece.source
    region["flags"] = [*region["flags"], *piece.flags]
