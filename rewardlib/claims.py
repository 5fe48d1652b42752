"""Does the policy still know what is in the image while it reasons? VAPO's reward (arXiv 2509.25848; xytian1008/VAPO).

The response is cut behind some of its punctuation; behind each cut the policy is asked, inside its own turn, whether a claim about the
image is right. The claims are the row's visual facts, which are, and facts of another image (``Sample.foreign``), which are not.

    reward = max(0, (sum w s / sum w - 0.5) / 0.5)     s: whether it was told right, w = exp(1.5 * place of the cut / length)

for right answers, 0 for wrong ones. So later claims count more, and guessing earns nothing. Departures: the paper has a model write twenty
claims for each question; the released code compares the reply to a claim with the label of another one, and has the step that asks
commented out. Which claims and cuts are drawn follows from the response itself.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from rewardlib.asking import Continuation, replies_of
from rewardlib.sample import Sample, Score
from rewardlib.text import Accuracy

MARKS = ",.\n!?;:"
YES, NO = ("yes", "Yes", "True", "true", "1"), ("no", "No", "False", "false", "0")
APART = 2  # characters between two cuts, at least


@dataclass(frozen=True)
class Probe:
    """A claim behind a cut."""

    cut: int  # the character of the response behind which it is asked
    claim: str
    right: bool


@dataclass(frozen=True)
class Claims:
    """How well claims about the image are told right from wrong while reasoning, in [0, 1]; None without facts or a gold answer."""

    count: int = 5
    growth: float = 1.5
    accuracy: Accuracy = field(default_factory=Accuracy)
    name: str = "claims"
    about: ClassVar[str] = "claims about the image told right from wrong while reasoning, in right answers (VAPO)"
    needs: ClassVar[frozenset[str]] = frozenset({"replies", "foreign"})
    requires: ClassVar[frozenset[str]] = frozenset({"answer", "annotations"})

    def questions(self, sample: Sample) -> list[Continuation]:
        """What the policy is asked: nothing about a wrong answer, which earns nothing."""
        if not sample.annotations or not self.accuracy.is_correct(sample):
            return []
        return [
            Continuation(
                f"{sample.response[: probe.cut + 1]}\n{probe.claim} Is this claim correct? Answer (Yes/No): ",
                (*YES, *NO),
            )
            for probe in self.probes(sample)
        ]

    def probes(self, sample: Sample) -> list[Probe]:
        """The claims about a sample, each behind a cut, in order."""
        digest = hashlib.sha256(repr((sample.group, sample.response)).encode()).digest()
        draws = random.Random(digest)
        claims = [(fact, True) for fact in sample.annotations] + [(fact, False) for fact in sample.foreign]
        draws.shuffle(claims)
        cuts = cut_places(sample.response)
        if not cuts:
            cuts = [len(sample.response) - 1]
        chosen = sorted(draws.sample(cuts, self.count)) if len(cuts) >= self.count else cuts
        chosen += [chosen[-1]] * (self.count - len(chosen))
        return [Probe(cut, *claims[n % len(claims)]) for n, cut in enumerate(chosen)]

    def __call__(self, samples: Sequence[Sample]) -> list[Score]:
        return [self._score(sample) for sample in samples]

    def _score(self, sample: Sample) -> Score:
        if sample.answer is None or not sample.annotations:
            return None
        if not self.accuracy.is_correct(sample):
            return 0.0
        right = total = 0.0
        for probe, reply in zip(self.probes(sample), replies_of(sample, self.name), strict=True):
            if reply is not None:
                weight = math.exp(self.growth * probe.cut / len(sample.response))
                total += weight
                right += weight * ((reply in YES) == probe.right)
        return max(0.0, (right / total - 0.5) / 0.5) if total else None


def cut_places(response: str) -> list[int]:
    """The characters of the reasoning behind which a claim can be asked: punctuation, from the left, some characters apart."""
    end = next((response.find(mark) for mark in ("</think>", "\\boxed") if mark in response), len(response))
    places: list[int] = []
    for place, character in enumerate(response[:end]):
        if character in MARKS and (not places or place - places[-1] >= APART):
            places.append(place)
    return places
