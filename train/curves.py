"""A metric's history as a chart in its own pixels: points, a smoothed line with gaps where nothing
was measured, ticks at round numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

Values = Sequence[float | None]

# of the plot in a chart of 380 x 200 pixels; report.html draws its axes there
LEFT, RIGHT, TOP, BOTTOM = (
    46,
    366,
    10,
    172,
)
MAX_DOTS = 1000  # of a chart; a browser has to lay out every one
# of tick labels: from which value on, the unit and its sign
UNITS = (
    (1e9, 1e9, "G"),
    (1e6, 1e6, "M"),
    (1e4, 1e3, "k"),
)


@dataclass(frozen=True)
class Curve:
    """A chart in its own pixels: ticks with labels, dots with what they say, and paths."""

    name: str
    summary: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    dots: list[tuple[float, float, str]]
    line: str
    band: str


def measured(values: Values) -> list[float]:
    return [value for value in values if value is not None]


def varies(values: Values) -> bool:
    there = measured(values)
    return bool(there) and max(there) - min(there) > 1e-6 * max(map(abs, there))


def draw_curve(
    name: str, steps: Sequence[int], values: Values, spread: Values | None = None
) -> Curve:
    """A metric's chart; ``spread`` is drawn as a band about its mean. The values must not all be
    the same.
    """
    middle = smooth(values, window_of(len(values)))
    wide = smooth(spread, window_of(len(values))) if spread else [None] * len(values)
    edges = [
        None if m is None or w is None else (m - w, m + w)
        for m, w in zip(middle, wide, strict=True)
    ]
    seen = measured(values) + [edge for pair in edges if pair for edge in pair]
    y_ticks, x_ticks = ticks_around(min(seen), max(seen)), ticks_between(steps[0], steps[-1])

    def x(step: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * (step - steps[0]) / (steps[-1] - steps[0]), 1)

    def y(value: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]), 1)

    line = [None if m is None else (x(step), y(m)) for step, m in zip(steps, middle, strict=True)]
    band = [
        None if pair is None else (x(step), y(pair[0]), y(pair[1]))
        for step, pair in zip(steps, edges, strict=True)
    ]
    dots = [
        (x(step), y(v), f"step {step}: {in_words(v, 4)}")
        for step, v in zip(steps, values, strict=True)
        if v is not None
    ]
    return Curve(
        name=name,
        summary=f"{in_words(measured(middle)[0], 3)} → {in_words(measured(middle)[-1], 3)}",
        x_ticks=[
            (x(tick), label) for tick, label in zip(x_ticks, tick_labels(x_ticks), strict=True)
        ],
        y_ticks=[
            (y(tick), label) for tick, label in zip(y_ticks, tick_labels(y_ticks), strict=True)
        ],
        dots=dots[:: -stride_of(len(steps))][::-1],
        line="".join(_joined(run) for run in runs(line)),
        band="".join(
            _joined([p[:2] for p in run] + [(p[0], p[2]) for p in reversed(run)]) + "Z"
            for run in runs(band)
        ),
    )


def window_of(count: int) -> int:
    """Points that a smoothed one is the mean of: an odd number, a tenth of the run."""
    return min(51, max(3, count // 10 | 1))


def stride_of(count: int) -> int:
    return -(-count // MAX_DOTS)


def smooth(values: Values, window: int) -> list[float | None]:
    """A centred moving average: no lag. A gap stays one, and at the ends there are fewer values to
    average.
    """
    half = window // 2
    near = [measured(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]
    return [
        None if value is None else sum(around) / len(around)
        for value, around in zip(values, near, strict=True)
    ]


def runs(points: Sequence[Any]) -> list[list[Any]]:
    """The points between the gaps."""
    return [
        list(run) for there, run in groupby(points, key=lambda point: point is not None) if there
    ]


def _joined(points: Sequence[tuple[float, float]]) -> str:
    """An SVG path through the points; a single one becomes a line of no length, which round caps
    make a dot.
    """
    return "M" + "L".join(f"{x:g},{y:g}" for x, y in points) + ("h0" if len(points) == 1 else "")


def ticks_around(low: float, high: float) -> list[float]:
    """Round numbers, evenly spaced, of which the first and the last enclose the range."""
    step = round_step((high - low) / 5)
    return [
        i * step for i in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)
    ]


def ticks_between(low: int, high: int) -> list[float]:
    """Round whole numbers inside the range."""
    step = int(max(1, round_step((high - low) / 5)))
    return [float(i) for i in range(-(-low // step) * step, high + 1, step)]


def round_step(least: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, ... (or 0.5, 0.2, ...) that is not below ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Short labels, all with the same decimals and unit."""
    largest = max(map(abs, ticks))
    unit, suffix = next(
        ((unit, suffix) for least, unit, suffix in UNITS if largest >= least), (1.0, "")
    )
    gap = min((b - a for a, b in pairwise(ticks)), default=1.0)
    if largest < 1e-3:
        power = math.floor(math.log10(gap) + 1e-9)
        unit, suffix = 10.0**power, f"e{power}"
    decimals = max(0, -math.floor(math.log10(gap / unit) + 1e-9))
    return [
        f"{tick / unit:.{decimals}f}{suffix}".replace("-", "−", tick < 0) if tick else "0"
        for tick in ticks
    ]


def in_words(value: Any, digits: int = 6) -> str:
    """A setting's or a metric's value, in few characters."""
    if isinstance(value, float):
        text = f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.{digits}g}"
        text = re.sub(r"e([+-])0*", r"e\1", text).replace("e+", "e")
        return text.replace("-", "−", 1 if value < 0 else 0)
    if isinstance(value, list):
        return ", ".join(map(in_words, value))
    return "–" if value in (None, "") else str(value)
