"""Which row a run's prompt is about, and its random numbers: both follow from the seed and the
prompt's number alone.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import torch


def row_index(rows: int, number: int, seed: int) -> int:
    """The row of a run's prompt ``number``: every epoch visits all rows once, in an order of its
    own, which follows from the seed alone.
    """
    return _order(rows, seed_of(seed, "epoch", number // rows))[number % rows]


@lru_cache(maxsize=2)
def _order(rows: int, seed: int) -> list[int]:
    return torch.randperm(rows, generator=torch.Generator().manual_seed(seed)).tolist()


def seed_of(*parts: int | str) -> int:
    """One seed from several numbers, the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")
