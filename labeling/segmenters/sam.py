"""Masks from boxes with SAM, through transformers.

An image is encoded once, however many boxes it has:

    segmenter = SamSegmenter.from_pretrained("facebook/sam-vit-base")
    segments = segmenter.segment([image], [[(10, 20, 60, 80)]])[0]
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from labeling.segmenters.prompted import Encoded, PromptedSegmenter


class SamSegmenter(PromptedSegmenter):
    """Any ``SamModel`` checkpoint. An image is padded to a square, and is one map when encoded."""

    def _encode(self, pixels: Tensor) -> Encoded:
        return {"image_embeddings": self.model.get_image_embeddings(pixels)}

    def _at_full_size(self, drawn: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        sizes = inputs["original_sizes"], inputs["reshaped_input_sizes"]
        whole: Tensor = self.processor.post_process_masks(drawn, *sizes)[0]
        return whole
