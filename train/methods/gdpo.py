"""GDPO: every reward is normalised by itself before they are added (arXiv 2601.05242; NVlabs/GDPO).

    a_k = (r_k - mean) / (std + 1e-4)  over the prompt's completions,     S = sum of weight_k * a_k
    advantage = (S - mean) / (std + 1e-4)  over the step's completions

So a reward of small spread, as those for perception often are, is not drowned by one of large
spread. A completion that a reward could not score gets nothing from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import rewardlib
from train.methods.base import Across, Method, Scores
from train.recipe import Recipe
from train.rewards import weights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class GDPO(Method):
    """Normalises rewards one by one."""

    name: ClassVar[str] = "gdpo"
    about: ClassVar[str] = "accuracy and format, each normalised by itself before they are added"
    sees_batch: ClassVar[bool] = True
    replaces_advantages: ClassVar[bool] = True
    recipe: ClassVar[Recipe] = Recipe(
        **weights(accuracy=1.0, format=1.0),
        methods=("gdpo",),
        loss="bnpo",
        kl=0.04,
        num_generations=16,
        max_tokens=1024,
        learning_rate=5e-6,
        schedule="cosine",
        warmup=0.1,
    )

    def advantages(
        self, advantages: list[Tensor], scores: Sequence[Scores], across: Across
    ) -> list[Tensor]:
        totals = [self.total(score) for score in scores]
        every = across.gather([total[~total.isnan()] for total in totals])
        if len(every) < 2:
            return advantages
        shaped = []
        for own, total, score in zip(advantages, totals, scores, strict=True):
            normal = (total - every.mean()) / (every.std() + 1e-4)
            # Equal rewards teach nothing, exactly.
            normal = normal.masked_fill((total == 0) | total.isnan(), 0.0)
            shaped.append(normal[score.completion_index].to(own.dtype))
        return shaped

    def total(self, scores: Scores) -> Tensor:
        """The weighted sum (G,) of every reward's own advantages; NaN for a completion that no
        reward could score.
        """
        one_group = scores.lengths * 0
        total = scores.logprobs.new_zeros(len(one_group)).double()
        unscored = one_group == 0
        for name, rewards in scores.rewards.items():
            total = total + scores.weights[name] * rewardlib.group_advantages(rewards, one_group)
            unscored = unscored & rewards.isnan()
        return total.masked_fill(unscored, float("nan"))
