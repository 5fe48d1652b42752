"""Batches that change next to nothing: what a model says does not depend on an image's company.

Padding images to a common size changes a lot: Swin's windows see the padding (measured on
``labeling/embedded/detector``: scores move by up to 0.05). So images are batched only with images
of the same processed size, and every forward has exactly as many rows as a batch has, filled up
with copies of its last row, since a matrix product rounds differently for one row than for eight.

With one row in a batch, the default, results are the same bit for bit. With more, that is so on
most processors; on some (AMD with AVX-512, torch 2.15, one thread) a row's roundings depend on
where it stands, and a score can differ in its last digit, by 1e-4.

The price is that a batch which is not full takes the time of a full one.
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
