"""PAPO: the policy is to answer otherwise where patches of the image are missing (arXiv 2507.06448;
MikeWangWZHL/PAPO).

    loss += - perception_kl * k3(token) + entropy_cost * (- logprob)

k3 = exp(d) - d - 1 with d = log p(token | masked image) - log p(token | image), clipped at 10: it
is made large. The masked image is the row's with 14-pixel patches blackened with probability 0.6,
one mask for all completions of a prompt; its log-probabilities are scored once a step and carry no
gradient, as in the released code. ``entropy_cost`` keeps that from being bought with noise (0 in
the paper's setting for small models, 0.05 for 7B); the paper's second entropy term, on the masked
view, has no gradient there and is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from train.limits import NOT_NEGATIVE, SHARE, Limit
from train.methods.base import Method, Tokens
from train.methods.dependence import k3
from train.recipe import Recipe
from train.views import ImageView, View, random_patches

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PAPO(Method):
    """Rewards tokens for depending on the image."""

    perception_kl: float = 0.02
    """weight of the divergence from the same tokens without the masked patches; the paper has 0.01
    where there is no --kl
    """
    masked: float = 0.6
    """probability that a patch of the image is blackened"""
    entropy_cost: float = 0.0
    """weight of the completions' entropy in the loss"""

    name: ClassVar[str] = "papo"
    about: ClassVar[str] = "accuracy and format, and tokens that depend on the image"
    requires: ClassVar[frozenset[str]] = frozenset({"image"})
    limits: ClassVar[Mapping[str, Limit]] = {
        "perception_kl": NOT_NEGATIVE,
        "masked": SHARE,
        "entropy_cost": NOT_NEGATIVE,
    }
    recipe: ClassVar[Recipe] = Recipe(
        methods=("papo",),
        kl=0.01,
        clip_high=0.3,
        num_generations=5,
        max_tokens=2048,
    )

    @property
    def view(self) -> View:
        return ImageView("masked", random_patches(self.masked))

    def views(self) -> Sequence[View]:
        return (self.view,)

    def penalty(self, tokens: Tokens) -> Tensor | None:
        penalty = -self.entropy_cost * tokens.logprobs
        if self.view in tokens.views:
            penalty = penalty - self.perception_kl * k3(tokens.logprobs, tokens.views[self.view])
        return penalty
