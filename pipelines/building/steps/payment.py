"""What questions to language models took, and how many had no usable reply: counts that ``pipelines.building.cost`` reads.

judge_requests, judge_prompt_tokens, judge_completion_tokens    all of them
judge_wasted_requests, ...                                      of those that had no usable reply, also part of the above
judge_failed: timeout                                           questions without a usable reply, by reason
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from labeling.locators.chain import Located
from pipelines.dataset.schema import Ledger
from rewardlib.judge import JudgeError

ASKED = ("collector", "judge", "verifier", "vlm-boxes", "answerer")  # who is asked, and the prefix of its counts
FAILURES = tuple(f"{asked}_failed: " for asked in ASKED)
_WASTED = "_wasted"  # in the names of the counts of what failures took
# Why a row is rejected that they left without.
ENDPOINT_FAILED = ("no trace could be collected", "the judge failed", "the locator failed")


class Taken(Protocol):
    """What an answer took."""

    @property
    def requests(self) -> int: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def completion_tokens(self) -> int: ...


def pay(asked: str, taken: Taken, ledger: Ledger) -> None:
    """Enter what an answer took into the account."""
    ledger.counts[f"{asked}_requests"] += taken.requests
    ledger.counts[f"{asked}_prompt_tokens"] += taken.prompt_tokens
    ledger.counts[f"{asked}_completion_tokens"] += taken.completion_tokens


def fail(asked: str, error: JudgeError, ledger: Ledger) -> None:
    """Count a question that had no usable reply, and what it took all the same."""
    ledger.counts[f"{asked}_failed: {error.reason}"] += 1
    if error.usage.requests:
        pay(asked, error.usage, ledger)
        pay(f"{asked}{_WASTED}", error.usage, ledger)


def settle(located: Located, ledger: Ledger) -> None:
    """Enter what the locators that ask somebody took to look at an image, and where they failed."""
    for locator, error in located.failures.items():
        fail(locator, error, ledger)
    for locator, answer in located.answers.items():
        pay(locator, answer, ledger)
        for reason in answer.dropped_for:
            ledger.counts[f"boxes_dropped: {reason}"] += 1


def carry_over(counts: Mapping[str, int], ledger: Ledger) -> None:
    """Enter what an earlier attempt at the same shard, with these counts, paid in vain into the account of this one."""
    for name, count in counts.items():
        if _WASTED in name:
            ledger.counts[name] += count
            ledger.counts[name.replace(_WASTED, "")] += count
