"""Figures with their 95 % intervals, and whether two sets of answers differ."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, sqrt
from statistics import fmean, stdev

Z = 1.96  # 95 % intervals


def share(values: Sequence[float | None]) -> dict[str, float | None]:
    """The share of ones with Wilson's interval, over the values that are known."""
    there = [value for value in values if value is not None]
    n = len(there)
    if not n:
        return {"value": None, "low": None, "high": None, "n": 0}
    p = fmean(there)
    centre, half = p + Z * Z / (2 * n), Z * sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    return {
        "value": p,
        "low": (centre - half) / (1 + Z * Z / n),
        "high": (centre + half) / (1 + Z * Z / n),
        "n": n,
    }


def mean(values: Sequence[float | None]) -> dict[str, float | None]:
    """The mean with its normal interval, over the values that are known."""
    there = [value for value in values if value is not None]
    if not there:
        return {"value": None, "low": None, "high": None, "n": 0}
    half = Z * stdev(there) / sqrt(len(there)) if len(there) > 1 else float("nan")
    return {
        "value": fmean(there),
        "low": fmean(there) - half,
        "high": fmean(there) + half,
        "n": len(there),
    }


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p-value of McNemar's test."""
    n = gained + lost
    tail = sum(comb(n, k) for k in range(min(gained, lost) + 1)) / 2**n
    return min(1.0, 2 * tail)
