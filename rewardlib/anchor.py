"""Anchoring: teach the attention of a ``<Focus>`` token to lie on the evidence, before any reward.

The first stage of Faithful-MR1 (arXiv 2605.22072). Its abstract says that the token's attention is supervised directly against image
regions; its loss is not public. Ours follows the nearest published mechanism (GUI-AIMA, arXiv 2511.00810): the token's attention over the
image tokens, renormalised, is drawn to a distribution over the region's tokens by KL.

    with AttentionProbe(model, differentiable=True).watch(focus_rows, {"image": image}, maps="image") as mass:
        output = model(**inputs, labels=labels)
        loss = output.loss + anchor_loss(mass.maps[0], anchor_target(region[image]))
        loss.backward()
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from rewardlib.tokens import Box, Tile, Weights


def anchor_target(coverage: Tensor) -> Tensor:
    """Distribution over a sample's image tokens (V,) from their coverage by the region, or any other non-negative weights."""
    total = coverage.sum()
    if not total > 0:
        raise ValueError("no image token is covered by the region: an anchor needs one (is the box inside the image?)")
    return coverage / total


def gaussian_weights(tiles: Sequence[Tile], boxes: Iterable[Box], coverage: Weights, width: float = 0.8) -> Weights:
    """Coverage (length,) that fades from each box's centre: times exp(-(dx / sx)^2 / 2 - (dy / sy)^2 / 2), s = ``width`` * the box's size.

    The largest over the boxes; GUI-AIMA's target, with its width.
    """
    bell, boxes = np.zeros(coverage.shape, np.float32), list(boxes)
    for tile in tiles:
        x0, y0, x1, y1 = tile.box
        rows, columns = tile.positions.shape
        x = x0 + (x1 - x0) * (np.arange(columns) + 0.5) / columns
        y = y0 + (y1 - y0) * (np.arange(rows) + 0.5) / rows
        for a, b, c, d in boxes:
            along_x = np.exp(-0.5 * ((x - (a + c) / 2) / (width * (c - a))) ** 2)
            along_y = np.exp(-0.5 * ((y - (b + d) / 2) / (width * (d - b))) ** 2)
            bell[tile.positions] = np.maximum(bell[tile.positions], np.outer(along_y, along_x))
    return coverage * bell


def anchor_loss(attention: Tensor, target: Tensor, eps: float = 1e-8) -> Tensor:
    """KL(target || attention renormalised over the image), a scalar: the mean over rows, 0 without any.

    attention: (R, V) of the focus rows on the image tokens. target: (V,) or (R, V), a distribution.
    """
    attention = attention.float()
    predicted = attention / (attention.sum(dim=-1, keepdim=True) + eps)
    divergence = torch.xlogy(target, target) - target * torch.log(predicted + eps)
    return divergence.sum() / max(1, len(attention))
