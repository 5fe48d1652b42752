"""How far two raters agree beyond chance: Cohen's kappa of yes-or-no verdicts, with a bootstrap interval over rows.

Verdicts about the same row are not independent, so whole rows are drawn, not verdicts.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Unit = TypeVar("Unit", bound=Hashable)
Counts = NDArray[np.float64]  # (..., 4): both yes, first only, second only, both no


def kappa(counts: Counts) -> NDArray[np.float64]:
    """Cohen's kappa (1960) of (..., 4) counts; NaN where chance alone gives full agreement, as when nobody ever says no."""
    both, first, second, neither = np.moveaxis(np.asarray(counts, float), -1, 0)
    total = both + first + second + neither
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = (both + neither) / total
        expected = ((both + first) * (both + second) + (neither + first) * (neither + second)) / total**2
        return np.where(expected < 1, (observed - expected) / (1 - expected), np.nan)


def agreement(a: Mapping[Unit, bool], b: Mapping[Unit, bool], row_of: Mapping[Unit, str], draws: int = 2000) -> dict[str, Any]:
    """Kappa with its 95 % interval, raw agreement, and the number of units that both have judged. None stands for what is undefined."""
    shared = [unit for unit in a if unit in b]
    counts = _by_row([(row_of[unit], a[unit], b[unit]) for unit in shared])
    if not shared:
        return {"kappa": None, "low": None, "high": None, "agreement": None, "units": 0}
    sampled = counts[np.random.default_rng(0).integers(len(counts), size=(draws, len(counts)))].sum(1)
    drawn = kappa(sampled)
    low, high = np.nanpercentile(drawn, [2.5, 97.5]) if np.isfinite(drawn).any() else (np.nan, np.nan)
    total = counts.sum(0)
    found = {"kappa": float(kappa(total)), "low": float(low), "high": float(high)}
    rounded = {name: None if np.isnan(value) else round(value, 4) for name, value in found.items()}
    return rounded | {"agreement": round(float((total[0] + total[3]) / total.sum()), 4), "units": len(shared)}


def _by_row(verdicts: Sequence[tuple[str, bool, bool]]) -> Counts:
    """The counts of each row, (rows, 4)."""
    rows = {row: i for i, row in enumerate(dict.fromkeys(row for row, _, _ in verdicts))}
    counts = np.zeros((len(rows), 4))
    for row, first, second in verdicts:
        counts[rows[row], 0 if first and second else 1 if first else 2 if second else 3] += 1
    return counts
