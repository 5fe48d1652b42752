"""CGPO: only tokens of high entropy, or that depend on the evidence, are learnt from (ACM MM 2026;
zsxm1998/awesome-perception-aware-rlvr).

    factor = alpha    among the 30 % of the step's tokens that depend most on the evidence,
             1        else, among the 30 % of the highest entropy,
             0        else
    alpha = 1 + 0.1 * tanh((S - median) / (MAD + 1e-8)),    S = the completion's mean dependence

The dependence of a token is k3 between its probability and that under the image without its
evidence; median and median deviation are over the step's completions. Departures: the evidence is
the dataset's, where the paper erases the regions that the policy's own response names, so its
reward for naming them well is not here; shares are of the whole step, where the released code takes
them over micro-batches, and values at the threshold are all in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from train.flat import completion_mean, threshold
from train.limits import PART, SHARE, Limit
from train.methods.base import Across, Method, Scores
from train.methods.dependence import k3
from train.recipe import Recipe
from train.rewards import weights
from train.views import EVIDENCE, View

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class CGPO(Method):
    """Learns from tokens in doubt, and from those that rest on the evidence."""

    reasoning: float = 0.3
    """share of the step's tokens that are learnt from for their entropy"""
    perception: float = 0.3
    """share of the step's tokens that are learnt from for depending on the evidence"""
    scale: float = 0.1
    """how much more the completion counts that depends on the evidence most"""

    name: ClassVar[str] = "cgpo"
    about: ClassVar[str] = (
        "accuracy and format, learnt from the tokens in doubt and from those that rest on the "
        "evidence"
    )
    requires: ClassVar[frozenset[str]] = frozenset({"evidence_image"})
    sees_batch: ClassVar[bool] = True
    limits: ClassVar[Mapping[str, Limit]] = {"reasoning": SHARE, "perception": SHARE, "scale": PART}
    recipe: ClassVar[Recipe] = Recipe(
        **weights(accuracy=0.9, format=0.1),
        methods=("cgpo",),
        kl=0.04,
        max_tokens=2048,
        top_p=0.99,
    )

    def views(self) -> Sequence[View]:
        return (EVIDENCE,)

    def advantages(
        self, advantages: list[Tensor], scores: Sequence[Scores], across: Across
    ) -> list[Tensor]:
        # A row whose evidence is not known keeps its advantages.
        rows = [n for n, score in enumerate(scores) if EVIDENCE in score.views]
        entropy = [scores[n].entropy for n in rows]
        dependence = [k3(scores[n].logprobs, scores[n].views[EVIDENCE]) for n in rows]
        means = [
            completion_mean(d, scores[n].completion_index)
            for n, d in zip(rows, dependence, strict=True)
        ]
        every = [across.gather(values) for values in (entropy, dependence, means)]
        shaped = list(advantages)
        if not len(every[2]):
            return shaped
        doubt, rest = threshold(every[0], self.reasoning), threshold(every[1], self.perception)
        middle = every[2].median()
        deviation = (every[2] - middle).abs().median()
        for n, own_entropy, own_dependence, mean in zip(
            rows, entropy, dependence, means, strict=True
        ):
            alpha = 1 + self.scale * ((mean - middle) / (deviation + 1e-8)).tanh()
            alpha = alpha[scores[n].completion_index].to(advantages[n].dtype)
            reasons = (own_entropy >= doubt).to(alpha.dtype)
            shaped[n] = advantages[n] * alpha.where(own_dependence >= rest, reasons)
        return shaped
