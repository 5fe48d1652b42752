"""Where completions come from. An engine is one file; the loop does not know which one it has.

engine = LocalEngine(policy)
completions = engine.generate(prompts, 8, Sampling(max_tokens=512), seeds)  # 8 for each
engine.sync()                                                               # after an update
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from train.policy import Prompt


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn."""

    max_tokens: int = 512
    temperature: float = 1.0
    """0: the most likely token"""
    top_p: float = 1.0
    top_k: int = 0
    """0: all tokens"""


class Engine(Protocol):
    """Samples from the policy as it is."""

    def generate(
        self, prompts: Sequence[Prompt], count: int, sampling: Sampling, seeds: Sequence[int]
    ) -> list[list[Tensor]]:
        """``count`` completions of every prompt: (n,) token ids, n >= 1, with the end token where
        the model ended.

        A prompt's random numbers follow from its own seed, whatever else is sampled.
        """
        ...

    def sync(self) -> None:
        """Take over the policy's weights after an update."""
        ...
