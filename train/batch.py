"""The values that a step passes on: a prompt's completions, what their rewards say, and the
normaliser of the step's loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from rewardlib.sample import Sample, Score
from train.data import Row
from train.policy import Prompt
from train.views import View


@dataclass
class Group:
    """A row's G completions, N tokens in all, and what their rewards say of them so far."""

    number: int  # which of the run's prompts this is
    row: Row
    prompt: Prompt
    completions: list[Tensor]
    samples: list[Sample]
    completion_index: Tensor  # (N,) the completion of each token
    # (N,) under what has sampled, where that is not the policy itself (``Completion``)
    sampled_logprobs: Tensor | None = None
    scores: dict[str, list[Score]] = field(default_factory=dict)  # by reward

    @property
    def tokens(self) -> int:
        return len(self.completion_index)

    def parts(self, size: int | None) -> list[slice]:
        """The completions in parts of at most ``size``."""
        count = len(self.completions)
        step = size or count
        return [slice(start, start + step) for start in range(0, count, step)]

    def tokens_of(self, part: slice) -> Tensor:
        """Which tokens (N,) belong to a part of the completions."""
        stop = len(self.completions) if part.stop is None else part.stop
        return (self.completion_index >= part.start) & (self.completion_index < stop)


@dataclass(frozen=True)
class Signal:
    """What a group's rewards say about its N tokens."""

    rewards: Tensor  # (G,) combined, NaN where there is none
    advantages: Tensor  # (N,)
    # (N,) under the policy that sampled; None: those of the first forward that is learnt from
    old_logprobs: Tensor | None
    ref_logprobs: Tensor | None  # (N,) under the model at the start
    views: Mapping[View, Tensor]  # (N,) under other views
    sampled_logprobs: Tensor | None = None  # (N,) as the group has them
    has_penalty: bool = False  # whether something else is in the loss, whatever the rewards are

    @property
    def empty(self) -> bool:
        """Equal rewards have nothing to teach, unless something else is in the loss."""
        return not bool(self.advantages.any()) and not self.has_penalty


@dataclass(frozen=True)
class Normalizer:
    """What a step holds, over all groups and processes: what its loss is divided by."""

    completions: int
    tokens: int
