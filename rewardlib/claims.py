"""Does the policy still know what is in the image while it reasons? VAPO's reward (arXiv 2509.25848; xytian1008/VAPO).

The response is cut behind some of its punctuation; behind each cut the policy is asked, inside its own turn, whether a claim about the
image is right. The claims are the row's visual facts, which are, and facts of another image (``Sample.foreign``), which are not.

    reward = max(0, (sum w s / sum w - 0.5) / 0.5)     s: whether it was told right, w = exp(1.5 * place of the cut / length)

for right answers, 0 for wrong ones. So later claims count more, and as right and wrong ones take turns, the same reply to all of them earns
little. Departures: the paper has a model write twenty claims for each question, and marks them with a word of its own; the released code
compares the reply to a claim with the label of another one, and has the step that asks commented out. Five claims a response are the
paper's for its smaller model; which claims and cuts are drawn follows from the response itself.
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
    """How well claims about the image are told right from wrong while reasoning, in [0, 1]; None without a gold answer, or
    without facts of the image and of another one."""

    count: int = 5
    growth: float = 1.5
    accuracy: Accuracy = field(default_factory=Accuracy)
    name: str = "claims"
    about: ClassVar[str] = "claims about the image told right from wrong while reasoning, in right answers (VAPO)"
    needs: ClassVar[frozenset[str]] = frozenset({"replies", "foreign"})
    requires: ClassVar[frozenset[str]] = frozenset({"answer", "annotations"})
    source: ClassVar[str] = "the data (claims are facts of at least two images)"  # what to correct where it scores nothing

    def questions(self, sample: Sample) -> list[Continuation]:
        """What the policy is asked: nothing about a wrong answer, which earns nothing."""
        if not (sample.annotations and sample.foreign) or not self.accuracy.is_correct(sample):
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
        right = draws.sample(sample.annotations, len(sample.annotations))
        wrong = draws.sample(sample.foreign, len(sample.foreign))
        # In turns, so that the same reply to all of them earns little.
        sides = [(right, True), (wrong, False)] if draws.random() < 0.5 else [(wrong, False), (right, True)]
        cuts = cut_places(sample.response)
        if not cuts:
            cuts = [len(sample.response) - 1]
        chosen = sorted(draws.sample(cuts, self.count)) if len(cuts) >= self.count else cuts
        chosen += [chosen[-1]] * (self.count - len(chosen))
        probes = []
        for n, cut in enumerate(chosen):
            claims, are_right = sides[n % 2]
            probes.append(Probe(cut, claims[n // 2 % len(claims)], are_right))
        return probes

    def __call__(self, samples: Sequence[Sample]) -> list[Score]:
        return [self._score(sample) for sample in samples]

    def _score(self, sample: Sample) -> Score:
        if sample.answer is None or not (sample.annotations and sample.foreign):
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
