"""Group-relative advantages (GRPO), with group ids instead of positions: neither order, micro-batches nor ranks can mix prompts up.

groups = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
advantages = group_advantages(to_tensor(scores), groups)      # (B,), NaN rewards get 0
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from rewardlib.sample import Score

Scale = Literal["group", "batch", "none"]


def to_tensor(scores: Sequence[Score]) -> Tensor:
    """Scores as a float64 tensor, None as NaN."""
    return torch.tensor([float("nan") if score is None else score for score in scores], dtype=torch.float64)


def group_advantages(rewards: Tensor, groups: Tensor, scale: Scale = "group", eps: float = 1e-4) -> Tensor:
    """Advantage of each sample over its group, (B,).

    rewards: (B,), NaN where a sample could not be scored: it gets 0 and is left out of its group's statistics.
    groups: (B,) integer ids; samples of one prompt share one. Groups may have different sizes and any order.
    scale: group  (r - mean) / (std + eps), GRPO (arXiv 2402.03300); std of the sample, n - 1, as in TRL and verl.
           batch  the same with the standard deviation of all rewards.
           none   r - mean, Dr. GRPO (arXiv 2503.20783).
    A group of equal rewards gets exactly 0.
    """
    known = ~rewards.isnan()
    values = torch.where(known, rewards.double(), 0.0)
    index = group_index(groups)
    centred = torch.where(known & ~_is_flat(values, known, index), values - _group_mean(values, known, index), 0.0)
    if scale == "group":
        count = _group_sum(known.double(), index)
        variance = _group_sum(centred**2, index) / (count - 1).clamp(min=1)
        centred = centred / (variance.sqrt() + eps)
    elif scale == "batch":
        centred = centred / (_std(values[known]) + eps)
    elif scale != "none":
        raise ValueError(f"scale is {scale!r}, expected group, batch or none")
    return centred.to(rewards.dtype) if rewards.is_floating_point() else centred


def zero_variance(rewards: Tensor, groups: Tensor) -> Tensor:
    """(B,) bool: samples whose group gives no gradient, all its known rewards being equal. By equality: a standard deviation of rounding
    errors is not zero."""
    known = ~rewards.isnan()
    index = group_index(groups)
    return _is_flat(torch.where(known, rewards.double(), 0.0), known, index)


def group_index(groups: Tensor) -> Tensor:
    """Group ids (B,) as indices 0, 1, ... of the distinct ones."""
    return torch.unique(groups, return_inverse=True)[1]


def _is_flat(values: Tensor, known: Tensor, index: Tensor) -> Tensor:
    groups = int(index.max()) + 1 if len(index) else 0
    low = values.new_full((groups,), torch.inf).scatter_reduce(0, index[known], values[known], "amin")
    high = values.new_full((groups,), -torch.inf).scatter_reduce(0, index[known], values[known], "amax")
    return (low >= high)[index]


def _group_sum(values: Tensor, index: Tensor) -> Tensor:
    """Every sample's sum over its group, (B,)."""
    groups = int(index.max()) + 1 if len(index) else 0
    return values.new_zeros(groups).index_add(0, index, values)[index]


def _group_mean(values: Tensor, known: Tensor, index: Tensor) -> Tensor:
    return _group_sum(values, index) / _group_sum(known.double(), index).clamp(min=1)


def _std(values: Tensor) -> Tensor:
    return values.std() if len(values) > 1 else values.new_zeros(())
