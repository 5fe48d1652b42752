"""The segmenter that a checkpoint is for, by the architecture that its ``config.json`` names."""

from __future__ import annotations

from typing import Any

from labeling.checkpoints import of_family
from labeling.segmenters.prompted import PromptedSegmenter
from labeling.segmenters.sam import SamSegmenter
from labeling.segmenters.sam2 import Sam2Segmenter
from labeling.segmenters.sam3 import Sam3Segmenter
from labeling.segmenters.sam_hq import SamHQSegmenter

# The checkpoints of SAM 2, EdgeTAM and SAM 3 are those of their video models.
FAMILIES: dict[str, type[PromptedSegmenter]] = {
    "sam": SamSegmenter,
    "sam_hq": SamHQSegmenter,
    "sam2": Sam2Segmenter,
    "sam2_video": Sam2Segmenter,
    "edgetam": Sam2Segmenter,
    "edgetam_video": Sam2Segmenter,
    "sam3_tracker": Sam3Segmenter,
    "sam3_video": Sam3Segmenter,
}


def load_segmenter(
    name: str,
    *,
    revision: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    **settings: Any,
) -> PromptedSegmenter:
    """The segmenter of a Hub id or a local folder.

    settings: what all of them take: boxes_at_once, batch_size.

    ``ValueError`` if the checkpoint is of another architecture, or the dtype of no known name.
    """
    kind = of_family(FAMILIES, name, revision, "draws no masks")
    return kind.from_pretrained(name, revision=revision, device=device, dtype=dtype, **settings)
