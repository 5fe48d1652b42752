"""Batches that change nothing: what a model says of an image does not depend on its company.

A matrix product rounds differently for one row than for eight, and a score that is rounded to four
digits, or a mask that is cut at a threshold, can show it. Padding images to a common size changes
far more: Swin's windows see the padding (measured on ``demo/checkpoints/detector``: scores move by
up to 0.05). So images are batched only with images of the same processed size, and every forward
has exactly as many rows as a batch has, filled up with copies of its last row. Measured with
torch 2.15 on a CPU: with the number of rows fixed, a row's result is the same, bit for bit,
wherever it stands and whatever stands beside it.

The price is that a batch which is not full takes the time of a full one. With one row in a batch
there is no such price; it is the default.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:  # who only groups requests can do without it
    from torch import Tensor

T = TypeVar("T")


def batches(
    jobs: Iterable[T],
    count: int,
    alike: Callable[[T], Hashable] = lambda job: None,
) -> Iterator[list[T]]:
    """Groups of at most ``count`` jobs for which ``alike`` is the same, in the jobs' order."""
    groups: dict[Hashable, list[T]] = {}
    for job in jobs:
        groups.setdefault(alike(job), []).append(job)
    for group in groups.values():
        yield from (group[i : i + count] for i in range(0, len(group), count))


def fill(rows: Tensor, count: int) -> Tensor:
    """``rows`` (at least one) and copies of the last, (count, ...)."""
    missing = count - len(rows)
    return rows[[*range(len(rows)), *[-1] * missing]] if missing else rows
