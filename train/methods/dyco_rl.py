"""DyCo-RL: completions count more whose attention follows what is changing, image or text (arXiv
2606.08035; Sammy20207109/DyCo-RL).

The last layer's attention, over all heads, of the position that predicts a token is split into a
part on the image and one on the text behind it. Between one token and the next each part moves, by
the Fisher-Rao distance 2 arccos(sum of sqrt(p q)):

    visual token     the part on the image moves more;     s = attention on the image / on both
    textual token    that on the text does, by over 0.05;  s = attention on the text / on both
    S = sigmoid(mean of s)
    z = tanh((S - mean) / std over the group), but -1 for fewer than 60 tokens
    advantage *= 1 + 0.2 * z,  within 0.8 and 1.2

Departures: the released code reads attention while it samples, over the padding of whichever
completion ends first, and standardises over a process's batch; here a completion's own tokens
count, and its group. Its last image token counts as text; here it is part of the image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from train.flat import completion_sum, joined
from train.limits import NOT_NEGATIVE, PART, Limit
from train.measures import Inputs, Measure, Reading, watch_attention
from train.methods.base import Across, Method, Scores
from train.recipe import Recipe
from train.rewards import weights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Alignment:
    """How much of a token's attention (N,) lies where it is moving, in [0, 1]; NaN for tokens of
    which that cannot be told.
    """

    margin: float
    name: ClassVar[str] = "alignment"

    @contextmanager
    def watch(self, inputs: Inputs) -> Iterator[Reading]:
        prompt, packed = inputs.prompt, inputs.packed
        if not bool(prompt.image.any()):
            unknown = prompt.region.new_full((len(packed.tokens),), math.nan)
            yield lambda hidden: unknown
            return
        first = int(prompt.image.nonzero()[0])
        with ExitStack() as stack:
            completions = []
            for completion in range(int(packed.completion_index.max()) + 1):
                own = packed.completion_index == completion
                keys = packed.ids.new_zeros(packed.ids.shape[1]).bool()
                keys[first : len(prompt.image)] = True
                keys[packed.tokens[own]] = True
                queries = packed.predictors[own]
                completions.append(
                    stack.enter_context(
                        watch_attention(inputs, queries, {"both": keys}, [-1], maps="both")
                    )
                )
            image = prompt.image[first:]

            def read(hidden: Tensor) -> Tensor:
                parts = [alignment(mass.maps[0], image, self.margin) for mass in completions]
                return joined(parts)

            yield read


def alignment(attention: Tensor, image: Tensor, margin: float) -> Tensor:
    """How much of each row's attention lies where it moves (T,), NaN where it cannot be told.

    attention: (T, K) of a completion's tokens, in order, on the prompt's tokens from the first
        image token on, and on the T tokens.
    image: (K - T,) bool, which of the prompt's tokens are the image's; all others, between images
        too, are text.
    """
    tokens = len(attention)
    is_image = image.new_zeros(attention.shape[1])
    is_image[: len(image)] = image
    on_image, on_text = attention[:, is_image], attention[:, ~is_image]
    looks, reads = on_image.sum(dim=1)[1:], on_text.sum(dim=1)[1:]
    # Of the text a token is compared with the one before it by what both see: all but that one.
    now = on_text[1:].clone()
    now[:, on_text.shape[1] - tokens : -1].fill_diagonal_(0.0)
    moved_image = fisher_rao(on_image[:-1], on_image[1:])
    moved_text = fisher_rao(on_text[:-1], now)
    both = (looks + reads).clamp(min=1e-8)
    unknown = attention.new_full((tokens,), math.nan)
    unknown[1:] = (reads / both).where(moved_text - moved_image > margin, math.nan)
    unknown[1:] = (looks / both).where(moved_image > moved_text, unknown[1:])
    return unknown


def fisher_rao(p: Tensor, q: Tensor) -> Tensor:
    """The angles 2 arccos(sum of sqrt(p q)) between weights (..., K), made to add up to 1."""
    p, q = p.clamp(min=1e-12), q.clamp(min=1e-12)
    p, q = p / p.sum(dim=-1, keepdim=True), q / q.sum(dim=-1, keepdim=True)
    return 2 * (p * q).sqrt().sum(dim=-1).clamp(max=1.0).arccos()


@dataclass(frozen=True)
class DyCoRL(Method):
    """Weighs completions by how well their attention follows what is changing."""

    strength: float = 0.2
    """how much more the completion counts that is aligned best"""
    margin: float = 0.05
    """how much more the attention on the text has to move, in radians, for a token to be a textual
    one
    """
    fewest_tokens: int = 60
    """completions of fewer tokens count least"""

    name: ClassVar[str] = "dyco-rl"
    about: ClassVar[str] = (
        "accuracy and format, with completions weighed by how their attention follows image and "
        "text"
    )
    requires: ClassVar[frozenset[str]] = frozenset({"image"})
    limits: ClassVar[Mapping[str, Limit]] = {
        "strength": PART,
        "margin": NOT_NEGATIVE,
        "fewest_tokens": NOT_NEGATIVE,
    }
    recipe: ClassVar[Recipe] = Recipe(
        **weights(accuracy=1.0, format=1.0),
        methods=("dyco-rl",),
        loss="grpo",
        kl=0.04,
        num_generations=4,
        max_tokens=2048,
        schedule="linear",
    )

    def measures(self) -> Sequence[Measure]:
        return (Alignment(self.margin),)

    def advantages(
        self, advantages: list[Tensor], scores: Sequence[Scores], across: Across
    ) -> list[Tensor]:
        shaped = []
        for own, score in zip(advantages, scores, strict=True):
            aligned = score.measured["alignment"]
            if bool(aligned.isnan().all()):  # a row without image
                shaped.append(own)
                continue
            factor = self.factors(aligned, score.completion_index)
            shaped.append(own * factor[score.completion_index].to(own.dtype))
        return shaped

    def factors(self, aligned: Tensor, completion_index: Tensor) -> Tensor:
        """What the advantage of each completion (G,) is multiplied by."""
        told = ~aligned.isnan()
        count = completion_sum(told.to(aligned.dtype), completion_index)
        mean = completion_sum(aligned.nan_to_num(0.0), completion_index) / count.clamp(min=1)
        score = mean.sigmoid().where(count > 0, 0.5)
        spread = score.std() if len(score) > 1 else score.new_zeros(())
        normal = ((score - score.mean()) / spread.clamp(min=1e-8)).tanh()
        normal = normal.where(spread > 1e-8, 0.0)
        normal = normal.where(completion_index.bincount() >= self.fewest_tokens, -1.0)
        return (1 + self.strength * normal).clamp(1 - self.strength, 1 + self.strength)
