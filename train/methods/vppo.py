"""VPPO: only tokens that depend on the image are learnt from, in trajectories weighed by how much
they do (arXiv 2510.09285).

The dependence of a token is k3 between its probability and that under an image with half of its
14-pixel patches blackened (huaixuheqing/VPPO-RL). Of each completion the 40 % most dependent tokens
keep their advantage; it is multiplied by a factor between 0.9 and 0.9 + 0.1 / mean, min-max of the
trajectories' mean dependence, which is 1 on average.

Departure: the released code takes minimum and maximum over a mini-batch of one process, and the
mean over a micro-batch; here all three are over the step's completions in all processes, so that
neither changes a factor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from train.flat import completion_mean, top_share
from train.limits import NOT_NEGATIVE, SHARE, Limit
from train.methods.base import Across, Method, Scores, Tokens
from train.methods.dependence import k3
from train.recipe import Recipe
from train.rewards import weights
from train.views import ImageView, View, random_patches

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
    about: ClassVar[str] = (
        "accuracy, learnt from the tokens and trajectories that depend on the image"
    )
    requires: ClassVar[frozenset[str]] = frozenset({"image"})
    sees_batch: ClassVar[bool] = True
    limits: ClassVar[Mapping[str, Limit]] = {
        "kept": SHARE,
        "lowest": SHARE,
        "masked": SHARE,
        "entropy_cost": NOT_NEGATIVE,
    }
    recipe: ClassVar[Recipe] = Recipe(
        methods=("vppo",),
        **weights(accuracy=1.0),
        template="boxed",
        filter_groups=True,
        clip_high=0.28,
        max_tokens=2048,
    )

    @property
    def view(self) -> View:
        return ImageView("masked", random_patches(self.masked))

    def views(self) -> Sequence[View]:
        return (self.view,)

    def advantages(
        self, advantages: list[Tensor], scores: Sequence[Scores], across: Across
    ) -> list[Tensor]:
        # A row without image depends on none, and keeps its advantages.
        seen = [n for n, score in enumerate(scores) if self.view in score.views]
        dependence = {n: k3(scores[n].logprobs, scores[n].views[self.view]) for n in seen}
        means = [completion_mean(dependence[n], scores[n].completion_index) for n in seen]
        factors = dict(zip(seen, self._factors(means, across), strict=True))
        shaped = list(advantages)
        for n in seen:
            index = scores[n].completion_index
            kept = top_share(dependence[n], index, self.kept)
            shaped[n] = advantages[n] * kept * factors[n][index].to(advantages[n].dtype)
        return shaped

    def _factors(self, means: Sequence[Tensor], across: Across) -> list[Tensor]:
        """The factor (G,) of every trajectory of these groups, from their mean dependence (G,) and
        that of all others of the step.
        """
        every = across.gather(means)
        if not len(every) or not bool(every.max() - every.min() > 1e-6):
            return [mean.new_ones(len(mean)) for mean in means]
        low, high = every.min(), every.max()
        width = (1 - self.lowest) / (((every - low) / (high - low)).mean() + 1e-8)
        return [self.lowest + (mean - low) / (high - low) * width for mean in means]

    def penalty(self, tokens: Tokens) -> Tensor | None:
        return -self.entropy_cost * tokens.logprobs
