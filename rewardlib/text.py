"""Rewards of the response's text alone: correct, well formed, not repetitive. Import no torch.

Accuracy()(samples)                          # 1 if the closed final answer is right
Format("think-answer")(samples)              # DeepSeek-R1's template
Format("answer", window=(60, 100))(samples)  # SAYO: one answer block, 60 to 100 tokens
Repetition()(samples)                        # Perception-R1: 20-gram penalty, in [-2, 0]
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from rewardlib.answers import check_answer
from rewardlib.quantities import DEFAULT_TOLERANCE
from rewardlib.sample import Sample, Score
from rewardlib.spans import find_boxes

Template = Literal["think-answer", "perception-r1", "boxed", "answer"]


@dataclass(frozen=True)
class Accuracy:
    """1 if the response's final answer is right, else 0; None where the row has no gold answer.

    Only a closed answer counts: one ``<answer>`` block or a ``\\boxed{}``. Numbers match within the relative ``tolerance``, choices by
    letter or text, expressions by math-verify. ``closed=False`` also reads answers stated in prose, for models that know no template.
    """

    tolerance: float = DEFAULT_TOLERANCE
    closed: bool = True
    name: str = "accuracy"
    needs: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, samples: Sequence[Sample]) -> list[Score]:
        return [None if s.answer is None else float(self.is_correct(s)) for s in samples]

    def is_correct(self, sample: Sample) -> bool:
        """Whether a sample's final answer is its gold answer; a sample without one is not correct."""
        if sample.answer is None:
            return False
        return check_answer(sample.response, sample.answer, sample.choices, strict=self.closed, tolerance=self.tolerance)


_TAG = re.compile(r"</?(?:think|answer)>")
_ORDER = {
    "think-answer": ["<think>", "</think>", "<answer>", "</answer>"],
    "perception-r1": ["<think>", "</think>", "<answer>", "</answer>"],
    "answer": ["<answer>", "</answer>"],
}
# DOTALL, because the templates ask for newlines.
_SHAPE = {
    "think-answer": re.compile(r"\s*<think>.*\S.*</think>\s*<answer>.*\S.*</answer>\s*", re.DOTALL),
    "perception-r1": re.compile(r"<think>\n.*\S.*\n</think>\n<answer>\n.*\\boxed\{.+\}.*\n</answer>\s*", re.DOTALL),
    "answer": re.compile(r".*<answer>.*\S.*</answer>\s*", re.DOTALL),
}


@dataclass(frozen=True)
class Format:
    """1 if the response keeps to a template, else 0, times a length factor where a ``window`` of tokens is given.

    think-answer: one think block, then one answer block, nothing else (DeepSeek-R1).
    perception-r1: the same on lines of their own, with one ``\\boxed{}`` in the answer (Perception-R1, r_f).
    boxed: exactly one ``\\boxed{}`` with content.
    answer: exactly one answer block, which ends the response; SAYO's with ``window=(60, 100)``: a response of n tokens outside the
        window is worth 0.6 of its distance, 0.6 * 100 / n or 0.6 * n / 60 (released code, reward/format_rewards.py).
    """

    template: Template = "think-answer"
    window: tuple[int, int] | None = None
    name: str = "format"
    needs: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, samples: Sequence[Sample]) -> list[Score]:
        return [float(self._keeps(s.response)) * self._length_factor(s) for s in samples]

    def _keeps(self, text: str) -> bool:
        if self.template == "boxed":
            return _one_box(text)
        # Tags are counted before anything is matched, so repeated and nested ones cannot hide in a wildcard.
        if _TAG.findall(text) != _ORDER[self.template] or not _SHAPE[self.template].fullmatch(text):
            return False
        return self.template != "perception-r1" or _one_box(text.partition("<answer>")[2])

    def _length_factor(self, sample: Sample) -> float:
        if self.window is None:
            return 1.0
        length = len(sample.response_ids) if sample.length is None else sample.length
        if sample.response and not length:
            raise ValueError(f"Format(window={self.window}) counts tokens: give Sample.response_ids or Sample.length")
        low, high = self.window
        return 0.6 * length / low if length < low else 0.6 * high / length if length > high else 1.0


def _one_box(text: str) -> bool:
    boxes = find_boxes(text)
    return len(boxes) == 1 == text.count(r"\boxed") and bool(text[boxes[0][1] : boxes[0][2]].strip())


@dataclass(frozen=True)
class Repetition:
    """``penalty`` times the share of repeated word n-grams, in [penalty, 0]; 0 for responses of fewer than n words.

    Perception-R1's r_p (released code: n = 20, penalty -2): penalty * (1 - distinct / all n-grams).
    """

    n: int = 20
    penalty: float = -2.0
    name: str = "repetition"
    needs: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, samples: Sequence[Sample]) -> list[Score]:
        return [self.penalty * share if (share := repeated_share(s.response, self.n)) else 0.0 for s in samples]


def repeated_share(text: str, n: int) -> float:
    """Share of a text's word n-grams that repeat an earlier one: 1 - distinct / all, in [0, 1)."""
    words = text.lower().split()
    grams = len(words) - n + 1
    if grams < 1:
        return 0.0
    if len(set(words)) == len(words):  # common, and cheap to see
        return 0.0
    return 1.0 - len({tuple(words[i : i + n]) for i in range(grams)}) / grams
