"""Masks from boxes with SAM 2, SAM 2.1 and EdgeTAM, through transformers.

They have one interface (EdgeTAM needs ``timm`` besides, for its backbone):

    segmenter = Sam2Segmenter.from_pretrained("facebook/sam2.1-hiera-large")
    segments = segmenter.segment([image], [[(10, 20, 60, 80)]])[0]
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from labeling.segmenters.prompted import Encoded, PromptedSegmenter


class Sam2Segmenter(PromptedSegmenter):
    """An image is squeezed into a square, and is a list of maps when encoded."""

    def _encode(self, pixels: Tensor) -> Encoded:
        return {"image_embeddings": self.model.get_image_embeddings(pixels)}

    def _at_full_size(self, drawn: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        whole: Tensor = self.processor.post_process_masks(drawn, inputs["original_sizes"])[0]
        return whole
