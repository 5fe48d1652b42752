"""ToR: tokens at which the policy decides count fully, tokens at which the image decides count
half, others not (arXiv 2603.25077).

    weight = 1      among the 30 % of the step's tokens of the highest entropy (of the likeliest
                    95 % of their distribution)
             0.5    else, among the 30 % of the largest |log p(token | image) - log p(token | none)|
             0      else

The weights multiply advantages, and nothing is renormalised, as in the re-implementation in
zsxm1998/awesome-perception-aware-rlvr; the authors have released no code. Departures: values at the
threshold are all in, where that code draws among them at random, so that order and processes change
nothing; and a token of which nothing is in doubt (its entropy is 0, as most are) is never in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from train.flat import joined, threshold
from train.limits import NOT_NEGATIVE, SHARE, Limit
from train.measures import Inputs, Measure, Reading
from train.methods.base import Across, Method, Scores
from train.recipe import Recipe
from train.rewards import weights
from train.views import NoImages, View

if TYPE_CHECKING:
    from torch import Tensor


SORTED = 128  # tokens whose whole distributions are sorted at once


@dataclass(frozen=True)
class NucleusEntropy:
    """Entropy (N,) in nats of the likeliest tokens that hold ``top_p`` of the probability."""

    top_p: float = 0.95
    name: ClassVar[str] = "nucleus_entropy"

    @contextmanager
    def watch(self, inputs: Inputs) -> Iterator[Reading]:
        def read(hidden: Tensor) -> Tensor:
            parts = [
                nucleus_entropy(logits, self.top_p)
                for logits in inputs.logits(hidden.detach(), SORTED)
            ]
            return joined(parts)

        yield read


def nucleus_entropy(logits: Tensor, top_p: float) -> Tensor:
    """Entropy (n,) of the renormalised nucleus of each distribution (n, vocabulary); the likeliest
    token is always in it.
    """
    ranked = logits.detach().softmax(dim=-1).sort(dim=-1, descending=True).values
    outside = ranked.cumsum(dim=-1) - ranked >= top_p
    nucleus = ranked.masked_fill(outside, 0.0)
    nucleus = nucleus / nucleus.sum(dim=-1, keepdim=True)
    return -(nucleus.xlogy(nucleus)).sum(dim=-1)


@dataclass(frozen=True)
class ToR(Method):
    """Learns from the tokens that reason, and half as much from those that perceive."""

    reasoning: float = 0.3
    """share of the step's tokens that count fully, those of the highest entropy"""
    perception: float = 0.3
    """share of the step's tokens that count half, those that the image changes most"""
    perception_weight: float = 0.5
    """what tokens that the image changes count, beside 1 for those of high entropy"""
    top_p: float = 0.95
    """share of the probability whose entropy counts"""

    name: ClassVar[str] = "tor"
    about: ClassVar[str] = (
        "accuracy, learnt from the tokens of high entropy and from those that the image decides"
    )
    requires: ClassVar[frozenset[str]] = frozenset({"image"})
    sees_batch: ClassVar[bool] = True
    limits: ClassVar[Mapping[str, Limit]] = {
        "reasoning": SHARE,
        "perception": SHARE,
        "perception_weight": NOT_NEGATIVE,
        "top_p": SHARE,
    }
    recipe: ClassVar[Recipe] = Recipe(
        **weights(accuracy=1.0),
        methods=("tor",),
        template="boxed",
        num_generations=12,
        max_tokens=2048,
        kl=0.01,
    )

    def views(self) -> Sequence[View]:
        return (NoImages(),)

    def measures(self) -> Sequence[Measure]:
        return (NucleusEntropy(self.top_p),)

    def advantages(
        self, advantages: list[Tensor], scores: Sequence[Scores], across: Across
    ) -> list[Tensor]:
        entropy = [score.measured["nucleus_entropy"] for score in scores]
        # A row without image has no token that the image decides.
        change = [(s.logprobs - s.views.get(NoImages(), s.logprobs)).abs() for s in scores]
        reasons = _highest(entropy, self.reasoning, across)
        perceives = _highest(change, self.perception, across)
        shaped = []
        for own, reason, perceive in zip(advantages, reasons, perceives, strict=True):
            weight = (perceive * self.perception_weight).where(~reason, 1.0)
            shaped.append(own * weight)
        return shaped


def _highest(values: Sequence[Tensor], share: float, across: Across) -> list[Tensor]:
    """Which tokens (N,) of each group are in the highest ``share`` of the step's; what is 0 is
    never.
    """
    every = across.gather(values)
    if not len(every):
        return []
    least = threshold(every, share)
    return [(group >= least) & (group > 0) for group in values]
