"""What a run did, in a line for each of its rewards: what rose, what fell, what stood still, and by
how much.

    for chapter in story(columns):
        print(chapter.name, chapter.verdict, chapter.start, chapter.end)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from train.diagnosis import Values, course

OTHERS = {"completions/mean_length": "length of responses, in tokens"}
_REWARD = re.compile(r"rewards/(.+)/mean")


@dataclass(frozen=True)
class Chapter:
    """One figure over a run: its mean over the first and the last fifth of the steps."""

    name: str
    start: float
    end: float
    verdict: Literal["rose", "fell", "stood still"]


def story(columns: Mapping[str, Values]) -> list[Chapter]:
    """The reward as a whole, every reward by itself, and how long responses are; of those that were
    measured in enough steps for a course to be told. ``columns`` are metrics, a value a step.
    """
    names = {"reward": "reward"}
    names |= {name: found[1] for name in columns if (found := _REWARD.fullmatch(name))}
    chapters = []
    for name, shown in (names | OTHERS).items():
        told = course(columns.get(name, ()))
        if told is not None:
            verdict: Literal["rose", "fell", "stood still"] = "stood still"
            if told.rises or told.falls:
                verdict = "rose" if told.rises else "fell"
            chapters.append(Chapter(shown, told.start, told.end, verdict))
    return chapters
