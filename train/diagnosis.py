"""What a run's metrics say went wrong, in the words of the cases that people get stuck in: curves
show it, but not by name.

    for finding in diagnose(columns):
        print(finding.what, finding.remedy)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

Values = Sequence[float | None]

FEWEST = 10  # steps from which on a course can be told
NEARLY = 0.9  # a share that counts as all
Z = 2.0  # standard errors from which on a change is more than noise


@dataclass(frozen=True)
class Finding:
    """A case, and what to do about it."""

    what: str
    remedy: str


@dataclass(frozen=True)
class Course:
    """A metric's mean over the first and the last fifth of a run, and whether they differ by more
    than its noise.
    """

    start: float
    end: float
    rises: bool
    falls: bool


def diagnose(columns: Mapping[str, Values]) -> list[Finding]:
    """The cases that a run is in, causes first; ``columns`` are its metrics, a value for each step,
    None where unknown.
    """
    causes = [
        _no_prompts(columns),
        _cut_off(columns),
        _format_never(columns),
        _groups_equal(columns),
        _skipped(columns),
        _format_alone(columns),
    ]
    findings = [finding for finding in causes if finding is not None]
    reward = None if findings else _reward(columns)  # else it is told why
    return [*findings, reward] if reward is not None else findings


def course(values: Values) -> Course | None:
    """The course of a metric; None where it has too few values."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if len(finite) < FEWEST:
        return None
    part = max(3, len(finite) // 5)
    first, last = finite[:part], finite[-part:]
    noise = math.hypot(stdev(first), stdev(last)) / math.sqrt(part)
    change = fmean(last) - fmean(first)
    told = abs(change) > max(Z * noise, 1e-9)
    return Course(fmean(first), fmean(last), told and change > 0, told and change < 0)


def _last(values: Values) -> float | None:
    """The mean over the last fifth of what is finite."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return fmean(finite[-max(1, len(finite) // 5) :]) if finite else None


def _groups_equal(columns: Mapping[str, Values]) -> Finding | None:
    share = _last(columns.get("frac_reward_zero_std", ()))
    if share is None or share < NEARLY:
        return None
    reward = _last(columns.get("reward", ()))
    level = "" if reward is None else f" (mean reward {reward:.2f})"
    return Finding(
        f"In {share:.0%} of the groups all completions have the same reward{level}: they teach "
        "nothing.",
        "If all are wrong, take easier questions or a stronger model; if all are right, harder "
        "ones. More --num-generations, a higher "
        "--temperature or --filter-groups finds what differs.",
    )


def _no_prompts(columns: Mapping[str, Values]) -> Finding | None:
    finite = [value for value in columns.get("prompts", ()) if value is not None]
    share = sum(value == 0 for value in finite) / len(finite) if finite else 0.0
    if share < NEARLY:
        return None
    return Finding(
        f"{share:.0%} of the steps had no prompt to learn from.",
        "See the rows that were left out; a prompt that is too long needs a higher --max-prompt. "
        "With --filter-groups, the "
        "completions of every prompt may be all right or all wrong: other questions, or "
        "--no-filter-groups.",
    )


def _cut_off(columns: Mapping[str, Values]) -> Finding | None:
    share = _last(columns.get("completions/clipped_ratio", ()))
    if share is None or share < NEARLY:
        return None
    return Finding(
        f"{share:.0%} of the completions are cut off before their end, so that they give no "
        "answer.",
        "Raise --max-tokens, or ask for shorter responses.",
    )


def _format_never(columns: Mapping[str, Values]) -> Finding | None:
    scores = [value for value in columns.get("rewards/format/mean", ()) if value is not None]
    if len(scores) < FEWEST or max(scores) > 0:
        return None
    return Finding(
        "No completion has ever kept to the template, so the format reward teaches nothing.",
        "Look at the completions below. Take a --template that the model writes of its own accord "
        "(boxed, answer), or --format 0.",
    )


def _format_alone(columns: Mapping[str, Values]) -> Finding | None:
    form, right = (
        course(columns.get(f"rewards/{name}/mean", ())) for name in ("format", "accuracy")
    )
    if form is None or right is None or not form.rises or right.rises:
        return None
    return Finding(
        f"Format rises ({form.start:.2f} to {form.end:.2f}) and accuracy does not "
        f"({right.start:.2f} to {right.end:.2f}): "
        "the model learns how answers look, not which are right.",
        "Lower --format now that it is kept; check on some completions below that a right answer "
        "counts as right, and that the "
        "questions can be answered at all.",
    )


def _reward(columns: Mapping[str, Values]) -> Finding | None:
    reward = course(columns.get("reward", ()))
    if reward is None or reward.rises:
        return None
    if reward.falls:
        return Finding(
            f"The reward falls, from {reward.start:.3f} to {reward.end:.3f}.",
            "Lower --learning-rate, or let it rise slowly with --warmup; more --prompts a step "
            "make the gradient steadier.",
        )
    return Finding(
        f"The reward stands still: {reward.start:.3f} at first and {reward.end:.3f} now, within "
        "its noise.",
        "Give it more steps or more --prompts a step; if grad_norm is small beside "
        "--max-grad-norm, a higher --learning-rate.",
    )


def _skipped(columns: Mapping[str, Values]) -> Finding | None:
    skipped = sum(value or 0 for value in columns.get("skipped", ()))
    if not skipped:
        return None
    return Finding(
        f"{skipped:.0f} updates were skipped, since their gradient was not finite.",
        "Lower --learning-rate.",
    )
