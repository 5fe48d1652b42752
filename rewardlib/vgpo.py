"""VGPO: advantages re-weighted by how visual each token and each trajectory is (arXiv 2604.09349, Eqs. 4 to 11).

All functions are pure, on whole (B, T) batches with a token mask and group ids. Compute scores when old log-probabilities are computed,
gather the batch, call ``visual_advantages`` once: then neither micro-batches nor order nor ranks can change a weight.

    score = focus_score(hidden, image_mean)                            # or attention mass on the image: any (B, T) in [0, 1]
    advantages = visual_advantages(advantages, score, mask, groups)    # (B, T)

Defaults are the paper's. The released code differs: it normalises over the micro-batch, counts t from 0, clamps the factors to [0.1, 2] and
[0.9, 2], and sums normalised weights; the clamps are options here.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from rewardlib.advantages import group_index

Clamp = tuple[float, float]


def focus_score(hidden: Tensor, image_mean: Tensor) -> Tensor:
    """Visual focus score (B, T) in [0, 1], Eq. 4: (cos(h_t, mu_v) + 1) / 2.

    hidden: (B, T, D) last-layer states of the response tokens. image_mean: (B, D) mean last-layer state of the sample's image tokens.
    """
    return 0.5 * (cosine_similarity(hidden.float(), image_mean.float()[:, None], dim=-1) + 1)


def compensate(score: Tensor, mask: Tensor, beta: float = 0.3, gamma: float = 0.5, kappa: float = 0.2) -> Tensor:
    """Visual attention compensation, Eqs. 5 and 6: w_t = score_t * (1 + gate_t * beta * t / T), (B, T), 0 outside the mask.

    The gate opens for the ``kappa`` highest scores among the last ``gamma`` of the response's tokens (at least one; ties included). t
    counts the response's tokens from 1 to T.
    """
    mask = mask.bool()
    length = mask.sum(dim=1, keepdim=True)
    step = mask.cumsum(dim=1)
    tail = mask & (step > length - torch.ceil(gamma * length.double() - 1e-9))  # 0.3 * 50 is 15, whatever its binary fraction says
    wanted = torch.floor(kappa * tail.sum(dim=1)).clamp(min=1).long()
    ranked = score.masked_fill(~tail, -torch.inf).sort(dim=1, descending=True).values
    threshold = ranked.gather(1, (wanted - 1)[:, None])
    gate = tail & (score >= threshold)
    return torch.where(mask, score * (1 + gate * beta * step / length.clamp(min=1)), 0.0)


def intra_factors(weights: Tensor, mask: Tensor, clamp: Clamp | None = None) -> Tensor:
    """1 + psi (B, T), Eqs. 7 and 8: min-max of each response's weights, less their mean; 1 outside the mask and for constant weights."""
    mask = mask.bool()
    low = weights.masked_fill(~mask, torch.inf).amin(dim=1, keepdim=True)
    high = weights.masked_fill(~mask, -torch.inf).amax(dim=1, keepdim=True)
    normal = torch.where(mask & (high > low), (weights - low) / (high - low), 0.0)
    mean = normal.sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.where(mask, _clamped(1 + normal - mean, clamp), 1.0)


def inter_factors(weights: Tensor, mask: Tensor, groups: Tensor, clamp: Clamp | None = None, *, per_token: bool = False) -> Tensor:
    """1 + phi (B,), Eqs. 9 to 11: min-max of the trajectories' summed weights within their group, less the group's mean.

    groups: (B,) integer ids of the prompts. per_token: mean instead of sum, so that a longer response is not more visual for its length.
    """
    mask = mask.bool()
    total = weights.masked_fill(~mask, 0.0).double().sum(dim=1)
    if per_token:
        total = total / mask.sum(dim=1).clamp(min=1)
    index = group_index(groups)
    count = index.bincount()
    low = total.new_full((len(count),), torch.inf).scatter_reduce(0, index, total, "amin")[index]
    high = total.new_full((len(count),), -torch.inf).scatter_reduce(0, index, total, "amax")[index]
    normal = torch.where(high > low, (total - low) / (high - low), 0.0)
    mean = (normal.new_zeros(len(count)).index_add(0, index, normal) / count)[index]
    return _clamped(1 + normal - mean, clamp).to(weights.dtype)


def visual_advantages(
    advantages: Tensor,
    score: Tensor,
    mask: Tensor,
    groups: Tensor,
    *,
    beta: float = 0.3,
    gamma: float = 0.5,
    kappa: float = 0.2,
    intra_clamp: Clamp | None = None,
    inter_clamp: Clamp | None = None,
    per_token: bool = False,
) -> Tensor:
    """A_t * (1 + psi_t) * (1 + phi): advantages (B,) or (B, T) re-weighted to (B, T), 0 outside the mask.

    score: (B, T) how visual each token is, in [0, 1]: ``focus_score``, or its attention mass on the image.
    """
    weights = compensate(score.float(), mask, beta, gamma, kappa)
    factors = intra_factors(weights, mask, intra_clamp) * inter_factors(weights, mask, groups, inter_clamp, per_token=per_token)[:, None]
    advantages = advantages[:, None] if advantages.dim() == 1 else advantages
    return torch.where(mask.bool(), advantages * factors, 0.0)


def _clamped(values: Tensor, clamp: Clamp | None) -> Tensor:
    return values if clamp is None else values.clamp(*clamp)
