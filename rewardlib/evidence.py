"""Does the answer rest on the evidence? Evidence-RL's reward (arXiv 2608.08021; evidencerl/code).

    s = mean over the answer's tokens of log p(token | image) - log p(token | image without something)
    m = tanh((s_evidence - s_control) / scale)
    reward = c * (1 + tanh(m / 0.2)) / 2 + 0.1 * m,    c = 1 for a right answer, -0.25 for a wrong one

where the evidence, or something else of the same shape, is what is missing. Departures: the released code erases hidden states of the
policy, not parts of the image, and divides by the standard deviation over three controls; a row here has one control, so the margin is in
units of ``scale`` nats. The answer's tokens are those inside the last ``<answer>`` or ``\\boxed{}``; all of the response's where there
is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from rewardlib.sample import Counterfactual, Sample, Score, supplied
from rewardlib.spans import find_boxes
from rewardlib.text import Accuracy

if TYPE_CHECKING:
    from rewardlib.sample import Values


@dataclass(frozen=True)
class EvidenceSupport:
    """Correctness as far as the answer rests on the evidence, in [-0.35, 1.1]; None without gold answer or counterfactual images."""

    scale: float = 0.5
    gate: float = 0.2
    bonus: float = 0.1
    wrong: float = -0.25
    accuracy: Accuracy = field(default_factory=Accuracy)
    name: str = "evidence_support"
    about: ClassVar[str] = "right answers as far as they rest on the evidence (Evidence-RL)"
    needs: ClassVar[frozenset[str]] = frozenset({"counterfactual", "token_ends"})
    requires: ClassVar[frozenset[str]] = frozenset({"answer", "evidence_image", "control_image"})

    def __call__(self, samples: Sequence[Sample]) -> list[Score]:
        return [self._score(sample) for sample in samples]

    def _score(self, sample: Sample) -> Score:
        logprobs: Counterfactual = supplied(sample, "counterfactual", self.name)
        if not sample.answer or logprobs.evidence is None or logprobs.control is None:
            return None
        chosen = answer_tokens(sample.response, supplied(sample, "token_ends", self.name))
        evidence = _fall(logprobs.original, logprobs.evidence, chosen)
        control = _fall(logprobs.original, logprobs.control, chosen)
        correctness = 1.0 if self.accuracy.is_correct(sample) else self.wrong
        return self.value(correctness, evidence, control)

    def value(self, correctness: float, evidence: float, control: float) -> float:
        """The reward of a correctness, and of how much the answer's log-probability falls without evidence and without control."""
        margin = math.tanh((evidence - control) / self.scale)
        return correctness * 0.5 * (1 + math.tanh(margin / self.gate)) + self.bonus * margin


def _fall(original: Values, changed: Values, chosen: slice) -> float:
    """The mean fall of the chosen tokens' log-probabilities, in nats."""
    return float((original[chosen] - changed[chosen]).mean())


def answer_tokens(response: str, token_ends: Sequence[int]) -> slice:
    """The tokens of the final answer: those that reach into the last answer block or box; all of them where there is none."""
    start, end = _answer_span(response)
    first = next((n for n, stop in enumerate(token_ends) if stop > start), 0)
    last = next((n for n, stop in enumerate(token_ends) if stop >= end), len(token_ends) - 1)
    return slice(first, max(first, last) + 1)


def _answer_span(response: str) -> tuple[int, int]:
    """Where the final answer begins and ends, in characters."""
    opened = response.rfind("<answer>")
    if opened >= 0:
        start = opened + len("<answer>")
        closed = response.find("</answer>", start)
        return start, closed if closed >= 0 else len(response)
    boxes = find_boxes(response)
    if boxes:
        _, start, end = boxes[-1][:3]
        return start, end
    return 0, len(response)
