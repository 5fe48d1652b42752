"""Policy losses on the flat tokens of any part of a batch: parts add up to the whole, however it was split.

    loss = sum over tokens of weight_t * (objective_t + beta * kl_t)

``weight`` holds the normaliser, which is known before the first forward (``token_weights``), so that neither micro-batches nor ranks can
change it. Ratios compare the current log-probabilities with those of the policy that sampled.

    grpo      mean over completions of token means            DeepSeekMath, arXiv 2402.03300
    dr_grpo   sum over tokens, over completions * max tokens  arXiv 2503.20783
    dapo      mean over all tokens                            arXiv 2503.14476
    gspo      one ratio per sequence                          arXiv 2507.18071, in its token form, so that advantages may differ by token
    cispo     clipped weight on the log-probability           arXiv 2506.13585
"""

from __future__ import annotations

import torch
from torch import Tensor

from train.settings import Loss


def token_weights(loss: Loss, lengths: Tensor, completions: int, tokens: int, max_tokens: int) -> Tensor:
    """What each completion's tokens weigh in the batch's loss, (B,).

    lengths: (B,) of some of the batch's completions. completions, tokens: how many there are in the whole batch, over all ranks.
    """
    if loss in ("grpo", "gspo"):
        return 1.0 / (lengths * completions)
    return torch.full(lengths.shape, 1.0 / (completions * max_tokens if loss == "dr_grpo" else tokens), device=lengths.device)


def policy_objective(
    loss: Loss, logprobs: Tensor, old: Tensor, advantages: Tensor, owner: Tensor, clip_low: float = 0.2, clip_high: float = 0.2
) -> Tensor:
    """The objective to minimise for every token, (N,).

    logprobs: (N,) with gradient. old: (N,) of the policy that sampled. advantages: (N,). owner: (N,) the completion of each token.
    """
    if loss == "cispo":
        weight = torch.exp(logprobs - old).detach().clamp(max=1 + clip_high)
        return -weight * advantages * logprobs
    log_ratio = logprobs - old
    if loss == "gspo":
        mean = _completion_mean(log_ratio, owner)[owner]
        log_ratio = mean.detach() + logprobs - logprobs.detach()
    ratio = torch.exp(log_ratio)
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages)


def kl_to_reference(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Schulman's k3 estimate of KL(policy || reference) for every token: exp(d) - d - 1 with d = reference - logprobs."""
    difference = reference - logprobs
    return torch.exp(difference) - difference - 1


def clipped(
    loss: Loss, logprobs: Tensor, old: Tensor, advantages: Tensor, owner: Tensor, clip_low: float = 0.2, clip_high: float = 0.2
) -> tuple[Tensor, Tensor]:
    """Which tokens (N,) the lower and the upper clip act on; arguments as for ``policy_objective``.

    It takes the gradient from a token whose ratio has gone further than the clip in the direction of its advantage; GSPO's ratio
    is that of the token's whole completion. CISPO never takes a gradient away: its upper clip caps the weight of the token,
    whatever its advantage, and it has no lower one.
    """
    log_ratio = logprobs - old
    if loss == "gspo":
        log_ratio = _completion_mean(log_ratio, owner)[owner]
    ratio = torch.exp(log_ratio)
    if loss == "cispo":
        return torch.zeros_like(ratio, dtype=torch.bool), ratio > 1 + clip_high
    return (ratio < 1 - clip_low) & (advantages < 0), (ratio > 1 + clip_high) & (advantages > 0)


def _completion_mean(values: Tensor, owner: Tensor) -> Tensor:
    count = owner.bincount()
    return values.new_zeros(len(count)).index_add(0, owner, values) / count.clamp(min=1)
