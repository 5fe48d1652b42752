"""NoisyRollout: half of each group is sampled from a noised image, and all is learnt from on the
clean one (arXiv 2504.13055).

The noise is that of a diffusion process after some steps, on the image as the model sees it
(John-AI-Lab/NoisyRollout); the steps fall from 500 to 0 by a sigmoid about two thirds of the run. A
prompt's noised image is the same for all its completions. As in the released code, advantages are
over both halves together, and nothing corrects for the noised half having been sampled from another
image. Departure: noise follows from the run's seed, where the released code draws it anew.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar

from train.limits import POSITIVE, SHARE, Limit
from train.methods.base import Method
from train.recipe import Recipe
from train.rewards import weights
from train.views import View

if TYPE_CHECKING:
    import numpy as np

    from train.policy import Prompt
    from train.shown import Shown

STEPS = 1000  # of the whole diffusion process
STEP = Limit(lambda value: 0 <= value < STEPS, f"0 or more, and less than {STEPS}")


@cache
def signal_left(step: int) -> float:
    """The share of an image's variance that is left after a step: the product of 1 - beta over all
    steps up to it.
    """
    left = 1.0
    for i in range(step + 1):
        beta = _sigmoid(-6 + 12 * i / (STEPS - 1)) * (5e-3 - 1e-5) + 1e-5
        left *= 1 - beta
    return left


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(min(-x, 700.0)))  # beyond it overflows


@dataclass(frozen=True)
class Noised:
    """The images after a step of the diffusion process, in the sizes that the policy sees."""

    step: int
    name: ClassVar[str] = "noised"

    def prompt(self, shown: Shown, generator: np.random.Generator) -> Prompt | None:
        left = signal_left(self.step)
        noised = []
        for pixels in shown.pixels:
            noise = generator.standard_normal(pixels.shape)
            noised.append(math.sqrt(left) * pixels + math.sqrt(1 - left) * noise)
        return shown.with_pixels(noised) if noised else None


@dataclass(frozen=True)
class NoisyRollout(Method):
    """Samples half of the completions from noised images."""

    noise: int = 500
    """steps of the diffusion process, of 1,000, at the start of the run"""
    decline: float = 30.0
    """how suddenly the noise falls"""
    midpoint: float = 2 / 3
    """share of the run after which half of the noise is left"""

    name: ClassVar[str] = "noisyrollout"
    about: ClassVar[str] = (
        "accuracy and format, with half of the completions sampled from noised images"
    )
    requires: ClassVar[frozenset[str]] = frozenset({"image"})
    changes_on_the_way: ClassVar[bool] = True
    limits: ClassVar[Mapping[str, Limit]] = {"noise": STEP, "decline": POSITIVE, "midpoint": SHARE}
    recipe: ClassVar[Recipe] = Recipe(
        **weights(accuracy=0.9, format=0.1),
        methods=("noisyrollout", "entropy-bonus"),
        template="boxed",
        num_generations=12,
        max_tokens=2048,
        freeze_vision=True,
    )

    @property
    def step(self) -> int:
        """How many steps of the diffusion process the images are noised by at present."""
        return int(self.noise * (1 - _sigmoid(self.decline * (self.progress - self.midpoint))))

    def sampled_under(self, count: int) -> Sequence[View | None]:
        noisy = count // 2
        return [None] * (count - noisy) + [Noised(self.step)] * noisy
