"""What a forward can tell besides log-probabilities, each as a value or a vector for every
completion token.

A measure is watched while the forward runs, and read after it. Methods bring measures of their own,
in their own files; those here are the ones that rewards and reports want.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import rewardlib

if TYPE_CHECKING:
    from torch import Tensor

    from rewardlib.probe import AttentionMass, JoinedMass
    from train.packing import Packed
    from train.policy import Policy, Prompt

Reading = Callable[["Tensor"], "Tensor"]
CHUNK = 1024  # tokens whose logits exist at once


@dataclass(frozen=True)
class Inputs:
    """What a forward is given: one prompt with its completions, by itself or in a row with others.

    ``prompt.image`` and ``prompt.region`` are those of the row's positions up to the prompt's end.
    """

    policy: Policy
    prompt: Prompt
    packed: Packed
    temperature: float

    def logits(self, hidden: Tensor, chunk: int = CHUNK) -> Iterator[Tensor]:
        """The logits (n, vocabulary) that the completion tokens were sampled from, over the
        temperature, some tokens at a time.
        """
        head = self.policy.model.get_output_embeddings()
        for start in range(0, len(self.packed.predictors), chunk):
            with self.policy.precision():
                logits = head(hidden[self.packed.predictors[start : start + chunk]])
            yield logits.float() / self.temperature


class Measure(Protocol):
    """Something to watch in a forward."""

    @property
    def name(self) -> str: ...

    def watch(self, inputs: Inputs) -> AbstractContextManager[Reading]:
        """Watch the one forward that runs inside.

        What it yields is called behind the forward with the last hidden states (T, D), and returns
        the values (N, ...) of the tokens.
        """
        ...


@dataclass(frozen=True)
class RegionAttention:
    """Attention (N, 2) on the labelled region and on all image tokens, averaged over heads and
    ``layers``.
    """

    layers: Sequence[int] | None = (-1,)
    name: ClassVar[str] = "attention"

    @contextmanager
    def watch(self, inputs: Inputs) -> Iterator[Reading]:
        keys = {"region": inputs.prompt.region, "image": inputs.prompt.image}
        with watch_attention(inputs, inputs.packed.tokens, keys, self.layers) as mass:
            yield lambda hidden: mass.values.mean(dim=(0, 2))[0]


@dataclass(frozen=True)
class ImageAttention:
    """Attention (N, V) on each of the V image tokens, averaged over heads and ``layers``."""

    layers: Sequence[int] | None = (-1,)
    name: ClassVar[str] = "image_attention"

    @contextmanager
    def watch(self, inputs: Inputs) -> Iterator[Reading]:
        keys = {"image": inputs.prompt.image}
        with watch_attention(inputs, inputs.packed.tokens, keys, self.layers, maps="image") as mass:
            yield lambda hidden: mass.maps[0]


@contextmanager
def watch_attention(
    inputs: Inputs,
    queries: Tensor,
    keys: Mapping[str, Tensor],
    layers: Sequence[int] | None,
    *,
    maps: str | None = None,
    differentiable: bool = False,
) -> Iterator[AttentionMass | JoinedMass]:
    """The attention of the positions ``queries`` (R,) on key sets: weights or bool of the prompt's
    tokens (P,) or of all (T,).
    """
    length = inputs.packed.ids.shape[1]
    rows = inputs.packed.ids.new_zeros(length).bool()
    rows[queries] = True
    whole = {}
    for name, weights in keys.items():
        whole[name] = weights.new_zeros(length)
        whole[name][: len(weights)] = weights
    probe = rewardlib.AttentionProbe(inputs.policy.model, layers, differentiable=differentiable)
    if inputs.policy.family.shares_prefix:
        with probe.watch(rows[None], {n: w[None] for n, w in whole.items()}, maps) as mass:
            yield mass
        return
    apart = inputs.packed.separate
    seen = {name: apart.spread(weights) for name, weights in whole.items()}
    with probe.watch(apart.spread(rows), seen, maps) as mass:
        yield rewardlib.JoinedMass(mass)
