"""How much a token depends on the image: the divergence between its probabilities with and without parts of it.

Tensors in, tensors out; methods that share these formulas differ in what they make of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def k3(logprobs: Tensor, other: Tensor) -> Tensor:
    """Schulman's estimate (N,) of the divergence of tokens' probabilities from those under another view, at most 10.

    exp(d) - d - 1 with d = other - logprobs, d within 20, as the released code of PAPO and VPPO has it.
    """
    difference = (other - logprobs).clamp(-20.0, 20.0)
    return (difference.exp() - difference - 1).clamp(max=10.0)


def top_share(values: Tensor, index: Tensor, share: float) -> Tensor:
    """Which tokens (N,) are among the highest of their completion: ceil(share * length) of each, earlier ones first among equals."""
    lengths = index.bincount()
    order = values.argsort(descending=True, stable=True)
    order = order[index[order].argsort(stable=True)]  # by completion, the highest first
    starts = lengths.cumsum(0) - lengths
    rank = index.new_zeros(len(index))
    rank[order] = index.new_ones(len(index)).cumsum(0) - 1 - starts[index[order]]
    wanted = (share * lengths.double() - 1e-9).ceil().long()
    return rank < wanted[index]


def completion_mean(values: Tensor, index: Tensor) -> Tensor:
    """The mean (G,) over each completion's tokens."""
    lengths = index.bincount()
    return values.new_zeros(len(lengths)).index_add(0, index, values) / lengths.clamp(min=1)


def completion_range(values: Tensor, index: Tensor) -> Tensor:
    """Values (N,) scaled to [0, 1] within each completion; 0 where they are all equal."""
    count = len(index.bincount())
    low = values.new_full((count,), float("inf")).scatter_reduce(0, index, values, "amin")[index]
    high = values.new_full((count,), float("-inf")).scatter_reduce(0, index, values, "amax")[index]
    width = high - low
    return ((values - low) / width.clamp(min=1e-12)).masked_fill(width <= 0, 0.0)
