"""PGPO: tokens that depend on the image count more, those that do not count less (arXiv 2604.01840,
Eqs. 6 and 7).

    I = min-max over the completion of log(1 + k3)
    w = I / tau                              below tau
        1 + beta * (I - tau) / (1 - tau)     from tau on
    then scaled to a mean of 1 over the completion

k3 is the divergence of a token's probability from that under a view in which nothing attends to the
image's tokens, all others keeping their positions. A completion whose tokens all depend alike keeps
its advantages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from train.flat import completion_mean, completion_minmax
from train.limits import NOT_NEGATIVE, PART, Limit
from train.methods.base import Across, Method, Scores
from train.methods.dependence import k3
from train.recipe import Recipe
from train.rewards import weights
from train.views import Unattended, View

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PGPO(Method):
    """Weighs tokens by how much they depend on the image."""

    tau: float = 0.4
    """normalised dependence from which on a token counts more than it would"""
    beta: float = 2.0
    """how much more the token counts that depends on the image most"""

    name: ClassVar[str] = "pgpo"
    about: ClassVar[str] = (
        "accuracy and format, with tokens weighed by how much they depend on the image"
    )
    requires: ClassVar[frozenset[str]] = frozenset({"image"})
    limits: ClassVar[Mapping[str, Limit]] = {"tau": PART, "beta": NOT_NEGATIVE}
    recipe: ClassVar[Recipe] = Recipe(
        **weights(accuracy=0.9, format=0.1),
        methods=("pgpo",),
        filter_groups=True,
        num_generations=5,
        max_tokens=2048,
        top_p=0.99,
        clip_high=0.28,
    )

    def views(self) -> Sequence[View]:
        return (Unattended(),)

    def advantages(
        self, advantages: list[Tensor], scores: Sequence[Scores], across: Across
    ) -> list[Tensor]:
        shaped = []
        for own, score in zip(advantages, scores, strict=True):
            blind = score.views.get(Unattended())
            shaped.append(
                own
                if blind is None
                else own * self.weights(k3(score.logprobs, blind), score.completion_index)
            )
        return shaped

    def weights(self, dependence: Tensor, completion_index: Tensor) -> Tensor:
        """The weight (N,) of every token, 1 on average over each completion."""
        importance = completion_minmax(dependence.log1p(), completion_index, 1e-8)
        above = 1 + self.beta * (importance - self.tau) / (1 - self.tau)
        weight = (importance / self.tau).where(importance < self.tau, above)
        mean = completion_mean(weight, completion_index)[completion_index]
        return (weight / mean.clamp(min=1e-8)).where(mean > 1e-8, 1.0)
