"""Masks from boxes with the tracker of SAM 3, through transformers.

What finds phrases in the same checkpoint is ``labeling.locators.sam3``:

    segmenter = Sam3Segmenter.from_pretrained("facebook/sam3")
    segments = segmenter.segment([image], [[(10, 20, 60, 80)]])[0]
"""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import Sam3TrackerProcessor

from labeling.segmenters.sam2 import Sam2Segmenter


class Sam3Segmenter(Sam2Segmenter):
    """Any checkpoint with a ``Sam3TrackerModel``, whose interface is SAM 2's."""

    processor_class: ClassVar[Any] = Sam3TrackerProcessor  # not the video's, which the files name
