"""A region as the dataset stores it: written out once, for those that are found and those that were given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def new_region(region_id: str, phrase: str, bbox: Sequence[float], locator: str, **known: Any) -> dict[str, Any]:
    """A region's columns, of which only these are known yet."""
    return {
        "region_id": region_id,
        "annotation_ids": [],
        "phrase": phrase,
        "bbox": list(bbox),
        "locator": locator,
        "confirmed_by": None,
        "score": None,
        "text": None,
        "role": "unknown",
        "role_by": "nobody",
        "effect": None,
        "effect_low": None,
        "effect_high": None,
        "mask": None,
        "mask_score": None,
        "mask_source": None,
        "flags": [],
        **known,
    }
