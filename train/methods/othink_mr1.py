"""OThink-MR1: the divergence from the model at the start counts little at first and more later
(arXiv 2503.16081, GRPO-D).

The paper calls a constant weight a bottleneck: explore early, exploit later. Its schedule is not
public; this one, which rises in a straight line over the run, is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from train.divergence import kl_to_reference
from train.limits import NOT_NEGATIVE, Limit
from train.methods.base import Method, Tokens
from train.recipe import Recipe
from train.rewards import weights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class OThinkMR1(Method):
    """Lets the policy explore first, and holds it later."""

    kl_first: float = 0.0
    """weight of the divergence from the model at the start, in the first step"""
    kl_last: float = 0.04
    """the weight to which it rises by the end of the run"""

    name: ClassVar[str] = "othink-mr1"
    about: ClassVar[str] = (
        "accuracy and format, with a divergence from the first model that counts more and more"
    )
    reference: ClassVar[bool] = True
    changes_on_the_way: ClassVar[bool] = True
    limits: ClassVar[Mapping[str, Limit]] = {"kl_first": NOT_NEGATIVE, "kl_last": NOT_NEGATIVE}
    recipe: ClassVar[Recipe] = Recipe(
        **weights(accuracy=1.0, format=1.0),
        methods=("othink-mr1",),
        loss="grpo",
    )

    @property
    def kl(self) -> float:
        """The weight of the divergence at present."""
        return self.kl_first + (self.kl_last - self.kl_first) * self.progress

    def penalty(self, tokens: Tokens) -> Tensor | None:
        if tokens.ref_logprobs is None:
            return None
        return self.kl * kl_to_reference(tokens.logprobs, tokens.ref_logprobs)
