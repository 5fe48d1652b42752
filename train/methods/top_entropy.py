"""Only the tokens in doubt are learnt from: the fifth of the highest entropy ("Beyond the 80/20
rule", arXiv 2506.01939).

The share is of all tokens of the step, those at the threshold in, as TRL's ``top_entropy_quantile``
has it for one process's micro-batch. The loss is still divided by all tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from train.limits import SHARE, Limit
from train.methods.base import Across, Method, Scores
from train.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TopEntropy(Method):
    """Learns from the tokens of the highest entropy."""

    share: float = 0.2
    """share of the step's tokens that are learnt from"""

    name: ClassVar[str] = "top-entropy"
    about: ClassVar[str] = "accuracy and format, learnt from the tokens of the highest entropy"
    sees_batch: ClassVar[bool] = True
    limits: ClassVar[Mapping[str, Limit]] = {"share": SHARE}
    recipe: ClassVar[Recipe] = Recipe(methods=("top-entropy",), filter_groups=True, clip_high=0.28)

    def advantages(
        self, advantages: list[Tensor], scores: Sequence[Scores], across: Across
    ) -> list[Tensor]:
        every = across.gather([score.entropy for score in scores])
        if not len(every):
            return advantages
        least = every.double().quantile(max(0.0, 1 - self.share))
        return [
            own * (score.entropy >= least) for own, score in zip(advantages, scores, strict=True)
        ]
