"""How far the mean of a few draws is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean, stdev

# Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom.
_T = [
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160),
    *(2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056),
    *(2.052, 2.048, 2.045, 2.042, 2.040),
]
MOST_DRAWS = len(_T) + 1


def mean_with_interval(draws: Sequence[float]) -> tuple[float, float, float]:
    """The mean of 2 to ``MOST_DRAWS`` draws, and the ends of its 95 % interval (Student's t)."""
    half = _T[len(draws) - 2] * stdev(draws) / math.sqrt(len(draws))
    return mean(draws), mean(draws) - half, mean(draws) + half
