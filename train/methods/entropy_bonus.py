"""A bonus for entropy keeps the policy from settling too soon: loss -= coef * entropy of every
token's whole distribution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from train.limits import FINITE, Limit
from train.methods.base import Method, Tokens
from train.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class EntropyBonus(Method):
    """Rewards the policy for being in doubt."""

    coef: float = 1e-3
    """weight of the tokens' entropy, in nats"""

    name: ClassVar[str] = "entropy-bonus"
    about: ClassVar[str] = "accuracy and format, and a bonus for entropy"
    entropy_gradient: ClassVar[bool] = True
    limits: ClassVar[Mapping[str, Limit]] = {"coef": FINITE}
    recipe: ClassVar[Recipe] = Recipe(methods=("entropy-bonus",))

    def penalty(self, tokens: Tokens) -> Tensor | None:
        return -self.coef * tokens.entropy
