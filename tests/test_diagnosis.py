"""A run that is stuck is told so by the name of its case, and one that learns is not."""

import random
import re

import pytest

from train.diagnosis import course, diagnose
from train.story import story


def noisy(start, end, steps=40, noise=0.02, seed=0):
    """A metric that goes from one value to another, with noise."""
    chance = random.Random(seed)
    return [start + (end - start) * n / (steps - 1) + chance.gauss(0, noise) for n in range(steps)]


LEARNING = {
    "reward": noisy(0.3, 0.8),
    "rewards/accuracy/mean": noisy(0.3, 0.7),
    "rewards/format/mean": noisy(0.5, 1.0),
    "frac_reward_zero_std": noisy(0.2, 0.3),
    "completions/clipped_ratio": noisy(0.1, 0.0),
    "skipped": [0.0] * 40,
}

CASES = {
    "no prompts": ({"prompts": [0.0] * 40}, "100% of the steps had no prompt to learn from"),
    "format alone": ({"rewards/accuracy/mean": noisy(0.3, 0.3, seed=1)}, r"Format rises \(0.\d+ to 0.9\d\) and accuracy does not"),
    "standing still": ({"reward": noisy(0.4, 0.4, seed=2)}, "The reward stands still: 0.4"),
    "falling": ({"reward": noisy(0.8, 0.3)}, r"The reward falls, from 0.7\d+ to 0.3"),
    "cut off": ({"completions/clipped_ratio": [1.0] * 40}, "100% of the completions are cut off"),
    "equal groups": ({"frac_reward_zero_std": [0.95] * 40}, r"In 95% of the groups all completions have the same reward \(mean reward 0.7"),
    "no format": ({"rewards/format/mean": [0.0] * 40}, "No completion has ever kept to the template"),
    "skipped": ({"skipped": [0.0] * 39 + [3.0]}, "3 updates were skipped"),
}


def test_a_run_that_learns_has_no_case():
    assert diagnose(LEARNING) == []


@pytest.mark.parametrize(("change", "what"), CASES.values(), ids=CASES)
def test_a_case_is_named_with_its_remedy(change, what):
    findings = diagnose(LEARNING | change)
    assert any(re.search(what, finding.what) for finding in findings)
    assert len(findings) == 1
    assert findings[0].remedy


@pytest.mark.parametrize(
    "columns", [{}, {"reward": [0.5]}, {"reward": [None] * 40}, {"reward": [0.4] * 9, "rewards/format/mean": [0.0] * 5}]
)
def test_too_little_is_no_case(columns):
    assert diagnose(columns) == []


def test_gaps_and_infinities_are_left_out():
    values = [None, float("nan"), float("inf"), *noisy(0.1, 0.9, steps=20)]
    told = course(values)
    assert told is not None
    assert told.rises
    assert not told.falls


def test_the_story_says_what_rose_and_what_stood_still():
    columns = LEARNING | {"rewards/perception/mean": noisy(0.4, 0.4, seed=3), "completions/mean_length": noisy(60, 30, noise=1)}
    told = {chapter.name: chapter.verdict for chapter in story(columns)}
    assert told == {
        "reward": "rose",
        "accuracy": "rose",
        "format": "rose",
        "perception": "stood still",
        "length of responses, in tokens": "fell",
    }
    (reward,) = [chapter for chapter in story(columns) if chapter.name == "reward"]
    assert (reward.start, reward.end) == (pytest.approx(0.35, abs=0.03), pytest.approx(0.75, abs=0.03))


def test_a_short_run_has_no_story():
    assert story({"reward": [0.1, 0.9]}) == []
