"""Importance weights, where another program than the policy has drawn the completions.

An engine's arithmetic is not the trainer's, so it samples from a slightly other distribution. The
ratio of both is the weight that makes the gradient right again; cut, so that a rare large one does
not rule a step (truncated importance sampling: Yao et al. 2025, "Your efficient RL framework
secretly brings you off-policy RL training").
"""

from __future__ import annotations

import torch
from torch import Tensor

from train.recipe import Correction

STEEPEST = 20.0  # a log-ratio beyond it is cut before it overflows


def importance_weights(
    logprobs: Tensor,
    sampled_logprobs: Tensor,
    completion_index: Tensor,
    correction: Correction,
    cap: float,
) -> Tensor:
    """What every token's objective is multiplied by, (N,).

    logprobs: (N,) under the policy. sampled_logprobs: (N,) under what has sampled; NaN where it did
        not say, which weighs 1. completion_index: (N,). correction: the ratio of each token or, as
        the product of its tokens' ratios, of each completion; above ``cap`` it is cut down to it
        (truncate) or set to 0 (mask).
    """
    difference = (logprobs - sampled_logprobs).detach().nan_to_num(nan=0.0)
    if correction == "none":
        return torch.ones_like(difference)
    if correction.startswith("sequence"):
        total = difference.new_zeros(int(completion_index.max()) + 1)
        total.index_add_(0, completion_index, difference)
        difference = total[completion_index]
    ratio = difference.clamp(-STEEPEST, STEEPEST).exp()
    if correction.endswith("mask"):
        return ratio.masked_fill(ratio > cap, 0.0)
    return ratio.clamp(max=cap)
