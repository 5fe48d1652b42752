"""Policy losses on the flat tokens of any part of a batch: parts add up to the whole, however it
was split.

    loss = sum over tokens of weight_t * (objective_t + beta * kl_t)

``weight`` holds the normaliser, which is known before the first forward, so that neither
micro-batches nor ranks can change it. Ratios compare the current log-probabilities with those of
the policy that sampled. A loss is one object: its objective, its weights, and what its clips act
on. Tensors have N tokens; ``completion_index`` (N,) is the completion of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from train.flat import completion_mean
from train.recipe import LossName


@dataclass(frozen=True)
class Loss:
    """GRPO's: the mean over completions of their tokens' means (DeepSeekMath, arXiv 2402.03300)."""

    clip_low: float = 0.2
    clip_high: float = 0.2

    def weights(self, lengths: Tensor, completions: int, tokens: int, max_tokens: int) -> Tensor:
        """What each completion's tokens weigh in the batch's loss, (B,).

        lengths: (B,) of some of the batch's completions. completions, tokens: how many there are in
            the whole batch, over all ranks.
        """
        return 1.0 / (lengths * completions)

    def log_ratio(self, logprobs: Tensor, old_logprobs: Tensor, completion_index: Tensor) -> Tensor:
        """The logarithm of the probability ratio of every token, (N,)."""
        return logprobs - old_logprobs

    def objective(
        self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, completion_index: Tensor
    ) -> Tensor:
        """The objective to minimise for every token, (N,); ``logprobs`` carry the gradient."""
        ratio = torch.exp(self.log_ratio(logprobs, old_logprobs, completion_index))
        return -torch.minimum(
            ratio * advantages, ratio.clamp(1 - self.clip_low, 1 + self.clip_high) * advantages
        )

    def clipped(
        self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, completion_index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Which tokens (N,) the lower and the upper clip take the gradient from."""
        ratio = torch.exp(self.log_ratio(logprobs, old_logprobs, completion_index))
        return (ratio < 1 - self.clip_low) & (advantages < 0), (ratio > 1 + self.clip_high) & (
            advantages > 0
        )


class DrGRPO(Loss):
    """The sum over tokens, over completions * max tokens (arXiv 2503.20783)."""

    def weights(self, lengths: Tensor, completions: int, tokens: int, max_tokens: int) -> Tensor:
        return torch.full(lengths.shape, 1.0 / (completions * max_tokens), device=lengths.device)


class DAPO(Loss):
    """The mean over all tokens (arXiv 2503.14476)."""

    def weights(self, lengths: Tensor, completions: int, tokens: int, max_tokens: int) -> Tensor:
        return torch.full(lengths.shape, 1.0 / tokens, device=lengths.device)


class GSPO(Loss):
    """One ratio per sequence (arXiv 2507.18071), in its token form, so that advantages may differ
    by token.
    """

    def log_ratio(self, logprobs: Tensor, old_logprobs: Tensor, completion_index: Tensor) -> Tensor:
        mean = completion_mean(logprobs - old_logprobs, completion_index)[completion_index]
        return mean.detach() + logprobs - logprobs.detach()


class CISPO(DAPO):
    """A clipped weight on the log-probability (arXiv 2506.13585)."""

    def objective(
        self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, completion_index: Tensor
    ) -> Tensor:
        weight = torch.exp(logprobs - old_logprobs).detach().clamp(max=1 + self.clip_high)
        return -weight * advantages * logprobs

    def clipped(
        self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, completion_index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """No gradient is taken away: the upper clip caps a token's weight, whatever its advantage,
        and there is no lower one.
        """
        ratio = torch.exp(logprobs - old_logprobs)
        return torch.zeros_like(ratio, dtype=torch.bool), ratio > 1 + self.clip_high


class SAPO(Loss):
    """A gate that closes softly where GRPO clips, faster for negative advantages (arXiv
    2511.20347).

    Its slope is 1 at a ratio of 1, so the first update is GRPO's.
    """

    # The paper's temperatures.
    positive: ClassVar[float] = 1.0
    negative: ClassVar[float] = 1.05

    def objective(
        self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, completion_index: Tensor
    ) -> Tensor:
        ratio = torch.exp(logprobs - old_logprobs)
        steepness = torch.where(advantages > 0, self.positive, self.negative)
        return -torch.sigmoid(steepness * (ratio - 1)) * 4 / steepness * advantages

    def clipped(
        self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, completion_index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """None: every token keeps some of its gradient."""
        none = torch.zeros_like(logprobs, dtype=torch.bool)
        return none, none


LOSSES: dict[LossName, type[Loss]] = {
    "grpo": Loss,
    "dr_grpo": DrGRPO,
    "dapo": DAPO,
    # The mean over the tokens of a batch, which here is the step's, however it is split up.
    "bnpo": DAPO,
    "gspo": GSPO,
    "cispo": CISPO,
    "sapo": SAPO,
}
