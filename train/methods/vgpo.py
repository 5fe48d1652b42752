"""VGPO: advantages re-weighted by how visual each token and each trajectory is (arXiv 2604.09349,
Eqs. 4 to 11).

The maths is ``rewardlib.vgpo``'s. Departures from the released code are stated there: weights are
normalised over whole responses and groups, not over micro-batches.

How visual a token is, the paper tells by its last hidden state. ``focus`` may be attention instead:
on the image, or, where rows are labelled, on the evidence alone (what it is worth:
docs/efficacy.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import rewardlib
from train.flat import padded
from train.limits import Limit, one_of
from train.measures import Inputs, Measure, Reading, watch_attention
from train.methods.base import Across, Method, Scores
from train.recipe import Recipe
from train.rewards import weights

if TYPE_CHECKING:
    from torch import Tensor


Focus = Literal["hidden", "image", "evidence"]


@dataclass(frozen=True)
class VisualFocus:
    """How near a token's last hidden state is to the image's (N,); NaN without one."""

    name: ClassVar[str] = "visual_focus"

    @contextmanager
    def watch(self, inputs: Inputs) -> Iterator[Reading]:
        prompt, tokens = inputs.prompt, inputs.packed.tokens

        def read(hidden: Tensor) -> Tensor:
            hidden = hidden.detach()
            image = hidden[: len(prompt.image)][prompt.image]
            if not len(image):
                return hidden.new_full((len(tokens),), float("nan"))
            mean = image.float().mean(dim=0)
            return rewardlib.focus_score(hidden[tokens][None], mean[None])[0]

        yield read


@dataclass(frozen=True)
class AttentionFocus:
    """How much of a token's attention lies on the image or on the evidence (N,), averaged over
    heads and all layers; NaN where there is none.
    """

    on: Literal["image", "evidence"]
    name: ClassVar[str] = VisualFocus.name

    @contextmanager
    def watch(self, inputs: Inputs) -> Iterator[Reading]:
        prompt, tokens = inputs.prompt, inputs.packed.tokens
        keys = prompt.image if self.on == "image" else prompt.region
        if not keys.any():
            yield lambda hidden: hidden.new_full((len(tokens),), float("nan"))
            return
        with watch_attention(inputs, tokens, {self.on: keys}, None) as mass:
            yield lambda hidden: mass.values.mean(dim=(0, 2))[0, :, 0]


@dataclass(frozen=True)
class VGPO(Method):
    """Re-weights advantages by visual focus."""

    focus: Focus = "hidden"
    """how visual a token is: how near its hidden state is to the image's (the paper's), or its
    attention on the image, or on the labelled evidence
    """

    name: ClassVar[str] = "vgpo"
    about: ClassVar[str] = "accuracy, with advantages re-weighted by how much each token looks"
    recipe: ClassVar[Recipe] = Recipe(
        methods=("vgpo",),
        **weights(accuracy=1.0),
        template="boxed",
        filter_groups=True,
        clip_high=0.28,
        max_tokens=2048,
        top_p=0.99,
    )

    limits: ClassVar[Mapping[str, Limit]] = {"focus": one_of(*get_args(Focus))}

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"regions"} if self.focus == "evidence" else ())

    def measures(self) -> Sequence[Measure]:
        return (VisualFocus() if self.focus == "hidden" else AttentionFocus(self.focus),)

    def advantages(
        self, advantages: list[Tensor], scores: Sequence[Scores], across: Across
    ) -> list[Tensor]:
        return [_reweighted(*each) for each in zip(advantages, scores, strict=True)]


def _reweighted(advantages: Tensor, scores: Scores) -> Tensor:
    if bool(scores.measured["visual_focus"].isnan().any()):  # a row that has no such thing
        return advantages
    index, count = scores.completion_index, len(scores.lengths)
    mask = padded(advantages.new_ones(len(index)), index, count).bool()
    one_group = index.new_zeros(count)
    focus = padded(scores.measured["visual_focus"], index, count)
    shaped = rewardlib.visual_advantages(padded(advantages, index, count), focus, mask, one_group)
    return shaped[mask]
