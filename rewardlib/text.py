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
from typing import ClassVar, Literal, get_args

from rewardlib.answers import check_answer, without_reasoning
from rewardlib.ink import has_ink
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
        return [float(self.is_correct(s)) if s.answer and s.answer.strip() else None for s in samples]

    def is_correct(self, sample: Sample) -> bool:
        """Whether a sample's final answer is its gold answer; a sample without one is not correct."""
        if sample.answer is None:
            return False
        return check_answer(sample.response, sample.answer, sample.choices, strict=self.closed, tolerance=self.tolerance)


# Whatever looks like a tag is read as one, so that <ANSWER> or </answer > cannot hide a second block; only the exact spelling is in order.
_TAG = re.compile(r"(?i)<\s*(?:/\s*)?(?:think|answer)\b[^<>]*>")
_ORDER = {
    "think-answer": ["<think>", "</think>", "<answer>", "</answer>"],
    "perception-r1": ["<think>", "</think>", "<answer>", "</answer>"],
    "answer": ["<answer>", "</answer>"],
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

    def __post_init__(self) -> None:
        if self.template not in get_args(Template):
            raise ValueError(f"template is {self.template!r}, expected one of {', '.join(get_args(Template))}")
        if self.window is not None and not 0 < self.window[0] <= self.window[1]:
            raise ValueError(f"window is {self.window}, expected (low, high) with 0 < low <= high")

    def __call__(self, samples: Sequence[Sample]) -> list[Score]:
        return [float(self._keeps(s.response)) * self._length_factor(s) for s in samples]

    def _keeps(self, text: str) -> bool:
        if self.template == "boxed":
            return _one_box(without_reasoning(text))
        tags = list(_TAG.finditer(text))
        if [tag[0] for tag in tags] != _ORDER[self.template]:
            return False
        # No pattern with wildcards: those take cubic time on a response that ends in another sentence.
        edges = [0, *(edge for tag in tags for edge in tag.span()), len(text)]
        *outer, answer, after = [text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]
        if after.strip() or not has_ink(answer):
            return False
        if self.template == "answer":
            return True
        before, think, gap = outer
        if not has_ink(think):
            return False
        if self.template == "think-answer":
            return not before.strip() and not gap.strip()
        own_lines = all(part[0] == part[-1] == "\n" for part in (think, answer))
        return own_lines and (before, gap) == ("", "\n") and _one_box(answer)

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
    return len(boxes) == 1 == text.count(r"\boxed") and has_ink(text[boxes[0][1] : boxes[0][2]])


@dataclass(frozen=True)
class Repetition:
    """``penalty`` times the share of repeated word n-grams, in [penalty, 0]; 0 for responses of fewer than n words.

    Perception-R1's r_p (released code: n = 20, penalty -2): penalty * (1 - distinct / all n-grams).
    """

    n: int = 20
    penalty: float = -2.0
    name: str = "repetition"
    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n is {self.n}, expected at least 1 word")

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
