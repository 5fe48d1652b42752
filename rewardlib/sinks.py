"""Visual sinks: image tokens that nearly every response token attends to, whatever it says. Needs numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rewardlib.sample import VisualAttention

if TYPE_CHECKING:
    from rewardlib.sample import Values

_ENOUGH = 8  # tokens of a response in which a habit can be told from one look


def without_sinks(maps: Values, weights: Values, ratio: float = 10.0, persistence: float = 0.9) -> VisualAttention:
    """Attention without visual sinks: image tokens that nearly every response token attends to, whatever it says.

    maps: (T, V) attention of the response on the image tokens. weights: (V,) their share in the region. A token that gets more than
    ``ratio`` times the image's mean attention from at least ``persistence`` of the response is left out of image and region alike (not in
    responses of fewer than eight tokens, where one look cannot be told from a habit). Sinks
    sit in corners and on borders and would otherwise decide the contrast ("See What You Are Told", arXiv 2503.03321).
    """
    kept = np.ones(maps.shape[1], bool)
    if len(maps) >= _ENOUGH:
        kept = (maps > ratio * maps.mean(axis=1, keepdims=True)).mean(axis=0) < persistence
    weights = weights * kept
    return VisualAttention(maps @ weights, maps @ kept.astype(maps.dtype), float(weights.sum()), float(kept.sum()))
