"""Masks from boxes with SAM-HQ, which draws fine edges, through transformers.

Its boxes and its interface are SAM's:

    segmenter = SamHQSegmenter.from_pretrained("syscv-community/sam-hq-vit-base")
    segments = segmenter.segment([image], [[(10, 20, 60, 80)]])[0]
"""

from __future__ import annotations

from torch import Tensor

from labeling.segmenters.prompted import Encoded
from labeling.segmenters.sam import SamSegmenter


class SamHQSegmenter(SamSegmenter):
    """Any ``SamHQModel`` checkpoint. An encoded image is SAM's map and those of earlier layers."""

    def _encode(self, pixels: Tensor) -> Encoded:
        last, earlier = self.model.get_image_embeddings(pixels)
        return {"image_embeddings": last, "intermediate_embeddings": earlier}
