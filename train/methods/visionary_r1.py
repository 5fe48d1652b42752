"""Visionary-R1: a description of the image has to be good enough to answer from, without the image
(arXiv 2505.14677).

A response begins with a description; the policy is asked once more, with the description in place
of the image, and earns ``rewardlib.caption.CaptionAnswer`` if it is right. The weight of the
divergence from the model at the start falls to zero by a cosine (maifoundations/Visionary-R1).
Departures: in the released code the caption's weight grows with the number of steps by mistake, a
caption of several lines counts as none, and its share of the KL rises again in a second epoch; here
the fall is over the run.
"""

from __future__ import annotations

import math
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
class VisionaryR1(Method):
    """Answers again from its own description, and is let go of the model at the start."""

    kl_first: float = 0.04
    """weight of the divergence from the model at the start, in the first step; it falls to zero by
    a cosine
    """

    name: ClassVar[str] = "visionary-r1"
    about: ClassVar[str] = (
        "accuracy and format, and a description of the image that can be answered from"
    )
    reference: ClassVar[bool] = True
    changes_on_the_way: ClassVar[bool] = True
    limits: ClassVar[Mapping[str, Limit]] = {"kl_first": NOT_NEGATIVE}
    recipe: ClassVar[Recipe] = Recipe(
        **weights(accuracy=1.0, format=1.0, caption=0.1),
        methods=("visionary-r1",),
        template="caption",
        loss="grpo",
        max_tokens=768,
        top_p=0.9,
        learning_rate=5e-7,
        schedule="linear",
    )

    @property
    def kl(self) -> float:
        """The weight of the divergence at present."""
        return self.kl_first * (1 + math.cos(math.pi * self.progress)) / 2

    def penalty(self, tokens: Tokens) -> Tensor | None:
        if tokens.ref_logprobs is None:
            return None
        return self.kl * kl_to_reference(tokens.logprobs, tokens.ref_logprobs)
