"""VPPO: only tokens that depend on the image are learnt from, in trajectories weighed by how much they do (arXiv 2510.09285).

The dependence of a token is k3 between its probability and that under an image with half of its 14-pixel patches blackened
(huaixuheqing/VPPO-RL). Of each completion the 40 % most dependent tokens keep their advantage; it is multiplied by a factor between 0.9
and 0.9 + 0.1 / mean, min-max of the trajectories' mean dependence, which is 1 on average.

Departure: the released code takes minimum and maximum over a mini-batch of one process, and the mean over a micro-batch; here all three
are over the step's completions in all processes, so that neither changes a factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from train.methods.base import Method, Scores, Sums, Tokens
from train.methods.dependence import completion_mean, k3, top_share
from train.recipe import Recipe
from train.views import View, random_patches

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class VPPO(Method):
    """Learns from tokens and trajectories that depend on the image."""

    kept: float = 0.4
    """share of each completion's tokens that are learnt from"""
    lowest: float = 0.9
    """factor of the trajectory that depends on the image least"""
    masked: float = 0.5
    """probability that a patch of the image is blackened"""
    entropy_cost: float = 0.06
    """weight of the completions' entropy in the loss"""

    name: ClassVar[str] = "vppo"
    recipe: ClassVar[Recipe] = Recipe(
        methods=("vppo",), accuracy=1.0, format=0.0, template="boxed", filter_groups=True, clip_high=0.28, max_tokens=2048
    )
    sees_batch: ClassVar[bool] = True

    def views(self) -> tuple[View, ...]:
        return (View("masked", random_patches(self.masked)),)

    def advantages(self, advantages: list[Tensor], scores: Sequence[Scores], sums: Sums) -> list[Tensor]:
        dependence = [_dependence(score) for score in scores]
        means = [None if d is None else completion_mean(d, s.completion_index) for d, s in zip(dependence, scores, strict=True)]
        factors = self._factors(means, sums)
        shaped = []
        for own, token, factor, score in zip(advantages, dependence, factors, scores, strict=True):
            if token is None or factor is None:  # a row without image depends on none
                shaped.append(own)
                continue
            kept = top_share(token, score.completion_index, self.kept)
            shaped.append(own * kept * factor[score.completion_index].to(own.dtype))
        return shaped

    def _factors(self, means: Sequence[Tensor | None], sums: Sums) -> list[Tensor | None]:
        """The factor (G,) of every trajectory."""
        values = [value for mean in means if mean is not None for value in mean.tolist()]
        low, high = sums.lowest(values), sums.highest(values)
        if not high - low > 1e-6:
            return [None if mean is None else mean.new_ones(len(mean)) for mean in means]
        normal = [None if mean is None else (mean - low) / (high - low) for mean in means]
        total, count = sums([sum((value - low) / (high - low) for value in values), len(values)])
        width = (1 - self.lowest) / (total / count + 1e-8)
        return [None if n is None else self.lowest + n * width for n in normal]

    def penalty(self, tokens: Tokens) -> Tensor | None:
        return -self.entropy_cost * tokens.logprobs


def _dependence(scores: Scores) -> Tensor | None:
    """How much each token (N,) depends on the patches that the masked view lacks; None for a row without image."""
    return k3(scores.logprobs, scores.views["masked"]) if "masked" in scores.views else None
