"""Rewards for looking: SAYO's attention contrast and a causal-attention reward after Faithful-MR1. They compute with
numpy's arrays, without torch.

They take attention that somebody has measured (``Sample.attention``): ``rewardlib.measure`` does it with a forward of its own, a trainer
in the pass that it makes anyway.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from rewardlib.sample import Counterfactual, Sample, Score, VisualAttention, supplied
from rewardlib.text import Accuracy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rewardlib.sample import Run, Values

# SAYO's guard of the logarithm.
_EPS = 1e-8


def top_entropy(entropy: Values, share: float = 0.3) -> NDArray[np.int64]:
    """Positions of the ``share`` of response tokens with the highest entropy, at least one; of equals the earlier (SAYO).

    entropy: (T,) of the response's own tokens, without padding: padding would push real tokens out of the share.
    """
    count = max(1, int(share * len(entropy)))
    highest = (-entropy).argsort(kind="stable")[:count]
    highest.sort()
    return highest


def attention_contrast(attention: VisualAttention, tokens: NDArray[np.int64]) -> float:
    """tanh(log(aim / img)): how much denser the chosen tokens' attention is on the region than on the image as a whole (SAYO, R_attn).

    aim and img are mean attention per key, over ``tokens`` and the keys of the region or image. In [-1, 1]; 0 where the region gets its
    share. A ratio of densities: it does not see how much attention goes to the image at all.
    """
    aim = attention.region[tokens].mean() / attention.region_tokens
    image = attention.image[tokens].mean() / attention.image_tokens
    return math.tanh(math.log((aim + _EPS) / (image + _EPS)))


@dataclass(frozen=True)
class AttentionContrast:
    """SAYO's region-level visual-attention reward (arXiv 2602.08241), over the top-entropy response tokens; ``share=1`` takes all tokens.

    -1 for an empty response; None where the row has no region (or no image).
    """

    share: float = 0.3
    name: str = "attention_contrast"
    about: ClassVar[str] = "attention on the labelled region (SAYO)"
    needs: ClassVar[frozenset[str]] = frozenset({"attention", "entropy"})
    requires: ClassVar[frozenset[str]] = frozenset({"regions"})

    @classmethod
    def for_run(cls, run: Run) -> AttentionContrast:
        """Over the run's share of tokens."""
        return cls(run.share)

    def __call__(self, samples: Sequence[Sample]) -> list[Score]:
        return [self._score(sample) for sample in samples]

    def _score(self, sample: Sample) -> Score:
        attention: VisualAttention = supplied(sample, "attention", self.name)
        entropy: Values = supplied(sample, "entropy", self.name)
        if not (attention.region_tokens and attention.image_tokens):
            return None
        if len(entropy) != len(attention.region):
            raise ValueError(f"reward {self.name!r} got {len(entropy)} entropies for {len(attention.region)} tokens' attention")
        return attention_contrast(attention, top_entropy(entropy, self.share)) if len(entropy) else -1.0


def causal_weights(original: Values, evidence: Values, control: Values | None = None, cap: float = 5.0) -> Values:
    """How much each response token rests on the evidence (T,), in nats, between 0 and ``cap``.

    The fall of its log-probability when the evidence is masked, less the fall when a control of the same shape is.
    """
    fall = (original - evidence).clip(min=0.0)
    if control is not None:
        fall = fall - (original - control).clip(min=0.0)
    return fall.clip(0.0, cap)


def causal_attention(attention: VisualAttention, weights: Values, floor: float = 0.1) -> float:
    """Share of the image attention that lies on the evidence, averaged over tokens by their causal weight, in [0, 1).

    ``floor`` (nats) stands in the denominator, so that a response that does not rest on the evidence at all earns nothing.
    """
    share = attention.region / attention.image.clip(min=_EPS)
    return float((weights * share).sum() / (weights.sum() + floor))


@dataclass(frozen=True)
class CausalAttention:
    """Attention on the evidence where the evidence causally matters, for correct answers only (after Faithful-MR1, arXiv 2605.22072).

    The paper's abstract says what is rewarded: answer-correct trajectories that concentrate visual attention where vision causally matters.
    Its formula is not public; this one is ours. 0 for wrong answers; None without gold answer, region or counterfactual image.
    """

    cap: float = 5.0
    floor: float = 0.1
    accuracy: Accuracy = field(default_factory=Accuracy)
    name: str = "causal_attention"
    about: ClassVar[str] = "attention where masking the evidence matters, in right answers (Faithful-MR1)"
    needs: ClassVar[frozenset[str]] = frozenset({"attention", "counterfactual"})
    requires: ClassVar[frozenset[str]] = frozenset({"regions", "evidence_image"})

    def __call__(self, samples: Sequence[Sample]) -> list[Score]:
        return [self._score(sample) for sample in samples]

    def _score(self, sample: Sample) -> Score:
        attention: VisualAttention = supplied(sample, "attention", self.name)
        logprobs: Counterfactual = supplied(sample, "counterfactual", self.name)
        if sample.answer is None or logprobs.evidence is None or not (attention.region_tokens and attention.image_tokens):
            return None
        if not self.accuracy.is_correct(sample):
            return 0.0
        if len(logprobs.original) != len(attention.region):
            raise ValueError(
                f"reward {self.name!r} got {len(logprobs.original)} log-probabilities for {len(attention.region)} tokens' attention"
            )
        return causal_attention(attention, causal_weights(logprobs.original, logprobs.evidence, logprobs.control, self.cap), self.floor)
