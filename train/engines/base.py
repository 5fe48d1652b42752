"""What an engine is: where completions come from. The loop does not know which one it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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


@dataclass(frozen=True)
class Completion:
    """What was drawn."""

    ids: Tensor
    """(n,) token ids, n >= 1, with the end token where the model ended"""
    logprobs: Tensor | None = None
    """(n,) of the distribution that each token was drawn from, where that is not the policy's own:
    what the loss corrects for (``train.correction``)
    """


class Processes(Protocol):
    """What an engine knows of the processes of a run (``train.distributed.World``)."""

    rank: int
    size: int

    @property
    def main(self) -> bool: ...

    def gather_objects(self, items: Sequence[Any]) -> list[Any]: ...

    def wait(self) -> None: ...


class Engine(Protocol):
    """Samples from the policy as it is."""

    def generate(
        self, prompts: Sequence[Prompt], count: int, sampling: Sampling, seeds: Sequence[int]
    ) -> list[list[Completion]]:
        """``count`` completions of every prompt.

        A prompt's random numbers follow from its own seed, whatever else is sampled, where the
        engine can do that.
        """
        ...

    def sync(self) -> None:
        """Take over the policy's weights after an update. All processes call it together."""
        ...
