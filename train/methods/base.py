"""What a method may change of GRPO. A paper's method is a class in a file of its own, which the loop never names.

    class Louder(Method):
        name = "louder"
        recipe = Recipe(methods=("louder",))

        def advantages(self, advantages, scores, sums):
            return [2 * a for a in advantages]

Its fields are the command line's flags (``--louder.FIELD``). A method sees whole groups, and may ask for all groups of the step at
once; so nothing that it computes can depend on micro-batches, order or processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from train.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from train.views import View


@dataclass(frozen=True)
class Scores:
    """What the forwards of one group's N tokens say, without gradient."""

    completion_index: Tensor  # (N,) the completion of each token
    logprobs: Tensor  # (N,) under the policy that sampled
    entropy: Tensor  # (N,) nats
    views: Mapping[str, Tensor]  # (N,) log-probabilities under further images; a row without such images lacks the name
    visual_focus: Tensor | None = None  # (N,) VGPO's score, where a method needs it

    @property
    def lengths(self) -> Tensor:
        """(G,) tokens of each completion."""
        return self.completion_index.bincount()


@dataclass(frozen=True)
class Tokens:
    """The N tokens of a part of a group as they are learnt from."""

    logprobs: Tensor  # (N,) with gradient
    completion_index: Tensor  # (N,)
    views: Mapping[str, Tensor]  # (N,) as in Scores


class Sums(Protocol):
    """What all processes have together, each giving its own values."""

    def __call__(self, values: Sequence[float]) -> list[float]:
        """The sum of every value over the processes."""
        ...

    def lowest(self, values: Sequence[float]) -> float: ...

    def highest(self, values: Sequence[float]) -> float: ...


@dataclass(frozen=True)
class Method:
    """GRPO; a paper overrides what it changes."""

    name: ClassVar[str]
    recipe: ClassVar[Recipe]  # the paper's values: the flags' defaults under ``--recipe NAME``
    needs: ClassVar[frozenset[str]] = frozenset()  # of the forward: "visual_focus"
    sees_batch: ClassVar[bool] = False  # whether advantages need all groups of the step at once: one more forward for each

    def views(self) -> tuple[View, ...]:
        """The further images that completions are scored under, a forward without gradient for each."""
        return ()

    def advantages(self, advantages: list[Tensor], scores: Sequence[Scores], sums: Sums) -> list[Tensor]:
        """The advantages (N,) of every group's tokens. All groups of this process where ``sees_batch``, else one."""
        return advantages

    def penalty(self, tokens: Tokens) -> Tensor | None:
        """What is added to the objective to minimise for every token, (N,), before it is averaged as the loss says."""
        return None
