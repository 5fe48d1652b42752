"""Does a second thought mend the first? SRPO's reward (arXiv 2506.01713; SUSTechBruce/SRPO_MLLMs, its OpenRLHF code).

    first answer wrong, last right     1            first right, last right     0.75
    first answer right, last wrong     0.25         both wrong                  0
    fewer than two thoughts or answers 0

plus 0.1 * exp(-d^2), d = (length - 2 x) / (x / 2), where x is the length of the first attempt: a reflection should be about as long as what
it reflects on. Departures: lengths are in characters, where the released code counts tokens; what the answers mean is decided as
``Accuracy`` decides it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from rewardlib.sample import Sample, Score
from rewardlib.templates import find_blocks
from rewardlib.text import Accuracy

PAIRS = {(False, True): 1.0, (True, True): 0.75, (True, False): 0.25, (False, False): 0.0}


@dataclass(frozen=True)
class Reflection:
    """What two answers with a reflection between them are worth, in [0, 1.1]; None without a gold answer."""

    length_weight: float = 0.1
    accuracy: Accuracy = field(default_factory=Accuracy)
    name: str = "reflection"
    about: ClassVar[str] = "a second answer that mends the first, behind a reflection as long as it needs to be (SRPO)"
    needs: ClassVar[frozenset[str]] = frozenset()
    requires: ClassVar[frozenset[str]] = frozenset({"answer"})

    def __call__(self, samples: Sequence[Sample]) -> list[Score]:
        return [self._score(sample) for sample in samples]

    def _score(self, sample: Sample) -> Score:
        if not sample.answer:
            return None
        text = sample.opening + sample.response
        answers = find_blocks(text, "answer")
        if len(answers) < 2 or len(find_blocks(text, "think")) < 2:
            return 0.0
        pair = self._is_right(sample, answers[0]), self._is_right(sample, answers[-1])
        return PAIRS[pair] + self.length_weight * length_score(text)

    def _is_right(self, sample: Sample, answer: str) -> bool:
        alone = replace(sample, response=f"<answer>{answer}</answer>", opening="")
        return self.accuracy.is_correct(alone)


def length_score(text: str) -> float:
    """1 for a response twice as long as its first attempt, less for any other length; 0 where it has not two of each block."""
    thoughts, answers = find_blocks(text, "think"), find_blocks(text, "answer")
    if len(thoughts) < 2 or len(answers) < 2:
        return 0.0
    first = len(thoughts[0].strip()) + len(answers[0].strip())
    if not first:
        return 0.0
    return math.exp(-(((len(text) - 2 * first) / (first / 2)) ** 2))
