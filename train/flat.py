"""Values of flat tokens, by completion.

A group's N tokens lie one behind the other, all of the first completion, then all of the second;
``completion_index`` (N,) says of each which one it belongs to. Only methods of tensors are used, so
that nothing here loads torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def completion_sum(values: Tensor, completion_index: Tensor) -> Tensor:
    """The sum (G,) over each completion's tokens."""
    count = int(completion_index.max()) + 1
    return values.new_zeros(count).index_add(0, completion_index, values)


def completion_mean(values: Tensor, completion_index: Tensor) -> Tensor:
    """The mean (G,) over each completion's tokens."""
    lengths = completion_index.bincount()
    return completion_sum(values, completion_index) / lengths.clamp(min=1)


def completion_minmax(values: Tensor, completion_index: Tensor, smallest: float = 1e-12) -> Tensor:
    """Values (N,) scaled to [0, 1] within each completion; 0 where they differ by no more than
    ``smallest``.
    """
    count = int(completion_index.max()) + 1
    low = values.new_full((count,), float("inf"))
    low = low.scatter_reduce(0, completion_index, values, "amin")[completion_index]
    high = values.new_full((count,), float("-inf"))
    high = high.scatter_reduce(0, completion_index, values, "amax")[completion_index]
    width = high - low
    return ((values - low) / width.clamp(min=smallest)).masked_fill(width <= smallest, 0.0)


def completion_softmax(values: Tensor, completion_index: Tensor) -> Tensor:
    """The softmax (N,) over each completion's tokens."""
    count = int(completion_index.max()) + 1
    high = values.new_full((count,), float("-inf")).scatter_reduce(
        0, completion_index, values, "amax"
    )
    powers = (values - high[completion_index]).exp()
    return powers / completion_sum(powers, completion_index)[completion_index]


def place_of(completion_index: Tensor) -> Tensor:
    """Where each token (N,) stands in its completion, from 0."""
    lengths = completion_index.bincount()
    starts = lengths.cumsum(0) - lengths
    count = completion_index.new_ones(len(completion_index)).cumsum(0) - 1
    return count - starts[completion_index]


def top_share(values: Tensor, completion_index: Tensor, share: float) -> Tensor:
    """Which tokens (N,) are among the highest of their completion: ceil(share * length) of each,
    earlier ones first among equals.
    """
    order = values.argsort(descending=True, stable=True)
    order = order[completion_index[order].argsort(stable=True)]  # by completion, the highest first
    # of the tokens in this order, since completions stand as they did
    rank = place_of(completion_index)
    ranks = rank.new_zeros(len(rank)).scatter(0, order, rank)
    return ranks < ceil_share(completion_index.bincount(), share)[completion_index]


def ceil_share(count: Tensor, share: float) -> Tensor:
    """ceil(share * count), whatever the binary fraction of a product such as 0.3 * 50 says."""
    return (share * count.double() - 1e-9).ceil().long()


def threshold(every: Tensor, share: float) -> Tensor:
    """The smallest of the ceil(share * n) highest among n values, so that all of these are at or
    above it; ties count as in.
    """
    count = max(1, int(ceil_share(every.new_tensor(len(every)), share)))
    return every.topk(count).values[-1]


def padded(values: Tensor, completion_index: Tensor, count: int, fill: float = 0.0) -> Tensor:
    """Values (N, ...) as (count, longest, ...), padded on the right."""
    longest = int(completion_index.bincount(minlength=count).max())
    result = values.new_full((count, longest, *values.shape[1:]), fill)
    result[completion_index, place_of(completion_index)] = values
    return result


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Values (n,) of several parts, at least one, as one."""
    result = parts[0].new_empty(sum(map(len, parts)))
    start = 0
    for part in parts:
        result[start : start + len(part)] = part
        start += len(part)
    return result
