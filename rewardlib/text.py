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
from typing import Any, ClassVar

from rewardlib.answers import check_answer, without_reasoning
from rewardlib.boxes import written_box
from rewardlib.ink import has_ink
from rewardlib.quantities import DEFAULT_TOLERANCE
from rewardlib.sample import Run, Sample, Score
from rewardlib.spans import find_boxes
from rewardlib.templates import LAYOUTS, Template


@dataclass(frozen=True)
class Accuracy:
    """1 if the response's final answer is right, else 0; None where the row has no gold answer.

    Only a closed answer counts: one ``<answer>`` block or a ``\\boxed{}``. It has to mean the gold answer or one of its ``alternatives``:
    numbers match within the relative ``tolerance``, choices by letter or text, expressions by math-verify. ``closed=False`` also reads
    answers stated in prose and numbers stated in a sentence, for models that know no template.
    """

    tolerance: float = DEFAULT_TOLERANCE
    closed: bool = True
    name: str = "accuracy"
    about: ClassVar[str] = "a closed final answer that is right"
    needs: ClassVar[frozenset[str]] = frozenset()
    requires: ClassVar[frozenset[str]] = frozenset({"answer"})

    def __call__(self, samples: Sequence[Sample]) -> list[Score]:
        return [float(self.is_correct(s)) if _golds(s) else None for s in samples]

    def is_correct(self, sample: Sample) -> bool:
        """Whether a sample's final answer is one of its gold answers; a sample without one is not correct."""
        golds = _golds(sample)
        return bool(golds) and check_answer(sample.response, golds, sample.choices, strict=self.closed, tolerance=self.tolerance)


def _golds(sample: Sample) -> list[str]:
    """The gold answers of a sample that say something."""
    return [gold for gold in (sample.answer, *sample.alternatives) if gold and gold.strip()]


@dataclass(frozen=True)
class Format:
    """1 if the response keeps to a template, else 0, times a length factor where a ``window`` of tokens is given.

    A template's blocks (``rewardlib.templates``) have to be there in order, each once and with content, and nothing outside of them.
    think-answer: one think block, then one answer block, nothing else (DeepSeek-R1).
    perception-r1: the same on lines of their own, with one ``\\boxed{}`` in the answer (Perception-R1, r_f).
    boxed: exactly one ``\\boxed{}`` with content.
    answer: exactly one answer block, which ends the response; SAYO's with ``window=(60, 100)``: a response of n tokens outside the
        window is worth 0.6 of its distance, 0.6 * 100 / n or 0.6 * n / 60 (released code, reward/format_rewards.py).
    box: think-answer, with four coordinates in the answer (VLM-R1).

    The chat templates of thinking models end the prompt with ``<think>``, which is then the response's. It is known from
    ``Sample.opening``, or from a prompt that is text; ``opening`` states it for hosts that show neither.
    """

    template: Template = "think-answer"
    window: tuple[int, int] | None = None
    opening: str = ""
    name: str = "format"
    about: ClassVar[str] = "keeping to the template"
    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        if self.template not in LAYOUTS:
            raise ValueError(f"template is {self.template!r}, expected one of {', '.join(LAYOUTS)}")
        if self.window is not None and not 0 < self.window[0] <= self.window[1]:
            raise ValueError(f"window is {self.window}, expected (low, high) with 0 < low <= high")

    @classmethod
    def for_run(cls, run: Run) -> Format:
        """The format of a run's own template."""
        return cls(run.template, run.window)

    def __call__(self, samples: Sequence[Sample]) -> list[Score]:
        return [float(self._keeps(s)) * self._length_factor(s) for s in samples]

    def _keeps(self, sample: Sample) -> bool:
        opening = sample.opening or self.opening or opening_of(sample.prompt)
        text = opening + sample.response
        layout = LAYOUTS[self.template]
        if not layout.blocks:
            return _one_box(without_reasoning(text))
        if layout.blocks == ("answer",) and opening:
            text = text.partition("</think>")[2]
        tags = list(layout.tag.finditer(text))
        if [tag[0] for tag in tags] != layout.tags:
            return False
        # No pattern with wildcards: those take cubic time on a response that ends in another sentence.
        edges = [0, *(edge for tag in tags for edge in tag.span()), len(text)]
        parts = [text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]
        blocks, (before, *between, after) = parts[1::2], parts[::2]
        if after.strip() or not all(map(has_ink, blocks)):
            return False
        if self.template == "answer":
            return True  # whatever comes before it is the reasoning
        if before.strip() or any(gap.strip() for gap in between):
            return False
        if self.template == "perception-r1":
            own_lines = all(block[0] == block[-1] == "\n" for block in blocks)
            return own_lines and (before, *between) == ("", "\n") and _one_box(blocks[-1])
        if self.template == "box":
            return written_box(blocks[-1]) is not None
        return True

    def _length_factor(self, sample: Sample) -> float:
        if self.window is None:
            return 1.0
        length = len(sample.response_ids) if sample.length is None else sample.length
        if sample.response and not length:
            raise ValueError(f"Format(window={self.window}) counts tokens: give Sample.response_ids or Sample.length")
        low, high = self.window
        return 0.6 * length / low if length < low else 0.6 * high / length if length > high else 1.0


def opening_of(prompt: Any) -> str:
    """What a prompt that is text begins of the response: the ``<think>`` that ends it, with the white space behind; else nothing."""
    if not isinstance(prompt, str):
        return ""
    end = _OPENING.search(prompt[-40:])
    return end[0] if end else ""


_OPENING = re.compile(r"<think>\s*$")


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
    about: ClassVar[str] = "not repeating oneself: the 20-gram penalty"
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
