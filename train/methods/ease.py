"""EASE: the attention of responses that earn a reward is drawn to the evidence, inside RL (arXiv
2605.30912).

    loss += weight * KL(attention over the image's tokens || target)
    for responses with a reward of at least 0.5
    target = 0.9 * mean over boxes of a Gaussian (a quarter of the box's sides wide) + 0.1 * uniform

Attention is that of layer floor(2 L / 3), over all heads, of at most 64 evenly spaced tokens of a
response. The authors' code could not be read; weight, layer, gate, direction, widths and smoothing
are from a log of its use. Ours: layers count from 0, heads are averaged, boxes count alike, a token
attends from its own position, rows without boxes are skipped, and the divergence is averaged over a
response's chosen tokens, and over responses as the loss averages tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from train.flat import completion_sum
from train.limits import COUNT, FINITE, NOT_NEGATIVE, POSITIVE, SHARE, Limit
from train.measures import Inputs, Measure, Reading, watch_attention
from train.methods.base import Method, Tokens
from train.recipe import Recipe
from train.rewards import weights

if TYPE_CHECKING:
    from torch import Tensor

    from train.policy import Prompt


@dataclass(frozen=True)
class EvidenceDivergence:
    """KL (N,) from tokens' attention on the image to the row's evidence; NaN for tokens that are
    not chosen, and without evidence.
    """

    tokens: int
    width: float
    smoothing: float
    name: ClassVar[str] = "evidence_divergence"

    @contextmanager
    def watch(self, inputs: Inputs) -> Iterator[Reading]:
        prompt, packed = inputs.prompt, inputs.packed
        unknown = prompt.region.new_full((len(packed.tokens),), math.nan)
        if not prompt.boxes or not bool(prompt.image.any()):
            yield lambda hidden: unknown
            return
        chosen = evenly_spaced(packed.completion_index, self.tokens)
        if len(prompt.tiles) != 1:
            raise ValueError(
                "--methods ease wants an image's tokens as one grid, and this model cuts images "
                "into tiles: leave the method out, or take a Qwen model"
            )
        target = self.target(prompt, prompt.tiles[0].positions.shape)
        layers = len(inputs.policy.model.get_decoder().layers)
        queries, keys = packed.tokens[chosen], {"image": prompt.image}
        with watch_attention(
            inputs, queries, keys, [2 * layers // 3], maps="image", differentiable=True
        ) as mass:
            yield lambda hidden: unknown.masked_scatter(chosen, divergence(mass.maps[0], target))

    def target(self, prompt: Prompt, grid: tuple[int, int]) -> Tensor:
        """Where the attention of a row's tokens is to lie (V,): on the boxes of the first image,
        hardly on further images.
        """
        rows, columns = grid
        of_first = gaussian_mixture(
            prompt.region.new_tensor(prompt.boxes), rows, columns, self.width
        )
        count = int(prompt.image.sum())
        target = prompt.region.new_zeros(count)
        target[: rows * columns] = of_first
        return (1 - self.smoothing) * target + self.smoothing / count


def evenly_spaced(completion_index: Tensor, limit: int) -> Tensor:
    """Which tokens (N,) are among ``limit`` evenly spaced ones of each completion, the first and
    the last among them; all of a short one.
    """
    lengths = completion_index.bincount()
    chosen = completion_index.new_zeros(len(completion_index)).bool()
    starts = lengths.cumsum(0) - lengths
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        count = min(length, limit)
        for i in range(count):
            place = i if count < 2 else math.floor(i * (length - 1) / (count - 1) + 0.5)
            chosen[start + place] = True
    return chosen


def gaussian_mixture(boxes: Tensor, rows: int, columns: int, width: float) -> Tensor:
    """The mean (rows * columns,) of a Gaussian for each box (x0, y0, x1, y1 in shares of the
    sides), each adding up to 1.
    """
    x = (boxes.new_ones(columns).cumsum(0) - 0.5) / columns
    y = (boxes.new_ones(rows).cumsum(0) - 0.5) / rows
    left, top, right, bottom = boxes.T
    across = ((x - (left + right)[:, None] / 2) / (width * (right - left)[:, None])) ** 2
    down = ((y - (top + bottom)[:, None] / 2) / (width * (bottom - top)[:, None])) ** 2
    exponent = -0.5 * (down[:, :, None] + across[:, None, :])
    return exponent.flatten(1).softmax(dim=-1).mean(dim=0)


def divergence(attention: Tensor, target: Tensor) -> Tensor:
    """KL (R,) from attention (R, V), renormalised, to a target (V,)."""
    attention = attention.float()
    share = attention / attention.sum(dim=-1, keepdim=True).clamp(min=1e-12)
    return (share * (share.clamp(min=1e-12).log() - target.clamp(min=1e-12).log())).sum(dim=-1)


@dataclass(frozen=True)
class EASE(Method):
    """Draws attention to the evidence while it trains."""

    weight: float = 0.001
    """weight of the divergence from the evidence in the loss"""
    least_reward: float = 0.5
    """reward from which on a response's attention is drawn"""
    tokens: int = 64
    """most tokens of a response whose attention is drawn"""
    width: float = 0.25
    """standard deviation of the target, in sides of the box"""
    smoothing: float = 0.1
    """share of the target that lies everywhere"""

    name: ClassVar[str] = "ease"
    about: ClassVar[str] = (
        "accuracy, and attention drawn to the labelled regions in responses that earn a reward"
    )
    requires: ClassVar[frozenset[str]] = frozenset({"regions"})
    limits: ClassVar[Mapping[str, Limit]] = {
        "weight": NOT_NEGATIVE,
        "least_reward": FINITE,
        "tokens": COUNT,
        "width": POSITIVE,
        "smoothing": SHARE,
    }
    recipe: ClassVar[Recipe] = Recipe(
        **weights(accuracy=1.0),
        methods=("ease",),
        num_generations=5,
        max_tokens=1024,
        clip_high=0.3,
    )

    def live_measures(self) -> Sequence[Measure]:
        return (EvidenceDivergence(self.tokens, self.width, self.smoothing),)

    def penalty(self, tokens: Tokens) -> Tensor | None:
        drawn = tokens.measured["evidence_divergence"]
        chosen = ~drawn.isnan()
        earns = (tokens.rewards >= self.least_reward)[tokens.completion_index]
        count = completion_sum(chosen.to(drawn.dtype), tokens.completion_index)
        of_token = (tokens.lengths / count.clamp(min=1))[tokens.completion_index]
        return self.weight * drawn.where(chosen & earns, 0.0) * of_token
