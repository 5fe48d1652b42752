"""Masks of what boxes hold. One file a segmenter; ``base`` has what they share."""

from labeling.segmenters.base import Segment, Segmenter

__all__ = ["Segment", "Segmenter"]
