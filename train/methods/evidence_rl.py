"""Evidence-RL: a right answer counts as far as it rests on the evidence (arXiv 2608.08021;
evidencerl/code).

Only the reward is new, ``rewardlib.evidence.EvidenceSupport``: the answer's log-probability is
compared without the evidence and without something else of the same shape, which are the dataset's
images. The paper erases hidden states in the policy, for one prompt of 32 short completions a step,
and learns by REINFORCE from the answer's tokens alone; here all else is GRPO.
"""

from __future__ import annotations

from typing import ClassVar

from train.methods.base import Method
from train.recipe import Recipe
from train.rewards import weights


class EvidenceRL(Method):
    """Right answers, as far as they rest on the evidence."""

    name: ClassVar[str] = "evidence-rl"
    about: ClassVar[str] = (
        "accuracy as far as the answer rests on the evidence (counterfactual images)"
    )
    recipe: ClassVar[Recipe] = Recipe(
        **weights(format=0.1, evidence_support=1.0),
        template="answer",
        kl=0.01,
        num_generations=32,
        max_tokens=128,
        top_p=0.95,
        learning_rate=1e-5,
    )
