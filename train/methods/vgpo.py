"""VGPO: advantages re-weighted by how visual each token and each trajectory is (arXiv 2604.09349, Eqs. 4 to 11).

The maths is ``rewardlib.vgpo``'s. Departures from the released code are stated there: weights are normalised over whole responses and
groups, not over micro-batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from train.methods.base import Method, Scores, Sums
from train.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class VGPO(Method):
    """Re-weights advantages by visual focus."""

    name: ClassVar[str] = "vgpo"
    recipe: ClassVar[Recipe] = Recipe(
        methods=("vgpo",), accuracy=1.0, format=0.0, template="boxed", filter_groups=True, clip_high=0.28, max_tokens=2048, top_p=0.99
    )
    needs: ClassVar[frozenset[str]] = frozenset({"visual_focus"})

    def advantages(self, advantages: list[Tensor], scores: Sequence[Scores], sums: Sums) -> list[Tensor]:
        return [_reweighted(own, score) for own, score in zip(advantages, scores, strict=True)]


def _reweighted(advantages: Tensor, scores: Scores) -> Tensor:
    from rewardlib.vgpo import visual_advantages  # loads torch, which --help does without
    from train.packing import padded

    if scores.visual_focus is None:
        return advantages
    index, count = scores.completion_index, len(scores.lengths)
    mask = padded(advantages.new_ones(len(index)), index, count).bool()
    together = index.new_zeros(count)
    focus = padded(scores.visual_focus, index, count)
    return visual_advantages(padded(advantages, index, count), focus, mask, together)[mask]
