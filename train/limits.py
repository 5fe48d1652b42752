"""Which values of a setting make sense: one sentence at the start is better than a run that learns
nothing.

    within(settings, steps=COUNT, temperature=POSITIVE)     # ValueError: --steps 0: give 1 or more
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Limit:
    """What a value has to be. None is always allowed: it is a default."""

    holds: Callable[[Any], bool]
    wanted: str


COUNT = Limit(lambda value: value >= 1, "1 or more")
POSITIVE = Limit(lambda value: 0 < value < math.inf, "a number above 0")
NOT_NEGATIVE = Limit(lambda value: 0 <= value < math.inf, "0 or more")
ABOVE_ZERO = Limit(lambda value: value > 0, "a number above 0, or inf")
FROM_ZERO = Limit(lambda value: value >= 0, "0 or more, or inf")
FINITE = Limit(math.isfinite, "a number")
SHARE = Limit(lambda value: 0 < value <= 1, "more than 0 and at most 1")
PART = Limit(lambda value: 0 < value < 1, "more than 0 and less than 1")


def one_of(*names: str) -> Limit:
    """A name among these."""
    return Limit(names.__contains__, f"one of {', '.join(names)}")


SOME = Limit(lambda value: len(value) > 0, "at least one")


def within(settings: Any, **limits: Limit) -> None:
    """``ValueError`` for the first setting that is not what its limit says, with flag and value."""
    all_within(settings, limits)


def all_within(settings: Any, limits: Mapping[str, Limit], prefix: str = "") -> None:
    """The same; ``prefix`` is that of the flags, such as a method's "papo."."""
    for name, limit in limits.items():
        value = getattr(settings, name)
        if value is not None and not limit.holds(value):
            flag = f"--{prefix}{name.replace('_', '-')}"
            raise ValueError(f"{flag} {_shown(value)}: give {limit.wanted}".replace(" :", ":"))


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
