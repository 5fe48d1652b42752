"""What a method may change of GRPO. A paper's method is a class in a file of its own, which the
loop never names.

    @dataclass(frozen=True)
    class Louder(Method):
        name: ClassVar[str] = "louder"
        about: ClassVar[str] = "accuracy and format, twice as much"
        recipe: ClassVar[Recipe] = Recipe(methods=("louder",))

        def advantages(self, advantages, scores, across):
            return [2 * a for a in advantages]

Its fields are the command line's flags (``--louder.FIELD``). ``advantages`` sees whole groups, and
may ask for all groups of the step at once; ``penalty`` sees whole completions, of which a token's
may only depend on its own. So nothing that a method computes can depend on micro-batches, order or
processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Protocol

import tyro

from train.limits import Limit
from train.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from train.measures import Measure
    from train.views import View


@dataclass(frozen=True)
class Scores:
    """What rewards and forwards say of one group's G completions and their N tokens, without
    gradient.
    """

    completion_index: Tensor  # (N,) the completion of each token
    logprobs: Tensor  # (N,) under the policy that sampled
    entropy: Tensor  # (N,) nats
    # (N,) log-probabilities under other views; a row that has none such lacks it
    views: Mapping[View, Tensor]
    measured: Mapping[str, Tensor]  # (N, ...) by measure
    rewards: Mapping[str, Tensor]  # (G,) by reward, NaN where there is none
    weights: Mapping[str, float]  # by reward

    @property
    def lengths(self) -> Tensor:
        """(G,) tokens of each completion."""
        return self.completion_index.bincount()


@dataclass(frozen=True)
class Tokens:
    """The N tokens of a part of a group as they are learnt from."""

    completion_index: Tensor  # (N,)
    logprobs: Tensor  # (N,) with gradient
    entropy: Tensor  # (N,) nats; with gradient where the method has ``entropy_gradient``
    views: Mapping[View, Tensor]  # (N,) as in Scores
    measured: Mapping[str, Tensor]  # (N, ...) of the method's ``live_measures``, with gradient
    rewards: Tensor  # (G,) of these completions, combined, NaN where there is none
    # (N,) under the model at the start, where the method has ``reference``
    ref_logprobs: Tensor | None

    @property
    def lengths(self) -> Tensor:
        """(G,) tokens of each completion."""
        return self.completion_index.bincount()


class Across(Protocol):
    """What all processes have together."""

    def gather(self, parts: Sequence[Tensor]) -> Tensor:
        """The values of all parts (n,) of all processes as one, those of the first process first. A
        process may have no part.
        """
        ...


@dataclass(frozen=True)
class Method:
    """GRPO; a paper overrides what it changes."""

    name: ClassVar[str]
    about: ClassVar[str]
    """what it does, in a line"""
    recipe: ClassVar[Recipe]
    """the paper's values: the flags' defaults under ``--recipe NAME``"""
    sees_batch: ClassVar[bool] = False
    """whether advantages need all groups of the step at once: one more forward for each"""
    reference: ClassVar[bool] = False
    """whether the model at the start is needed"""
    entropy_gradient: ClassVar[bool] = False
    """whether the penalty wants the gradient of the entropy"""
    replaces_advantages: ClassVar[bool] = False
    """whether advantages are made anew, whatever they were: such a method has to come first"""
    changes_on_the_way: ClassVar[bool] = False
    """whether what it does depends on ``progress``"""

    limits: ClassVar[Mapping[str, Limit]] = {}
    """what the values of its fields have to be"""

    progress: Annotated[float, tyro.conf.Suppress] = 0.0
    """the share of the run that is done, from 0 to below 1; the run sets it"""

    @property
    def requires(self) -> frozenset[str]:
        """Labels that a row must have to be changed by it, as in ``train.labels``."""
        return frozenset()

    def sampled_under(self, count: int) -> Sequence[View | None]:
        """The view under which each of a prompt's completions is sampled; None: the row as it is.
        All are learnt from as it is.
        """
        return [None] * count

    def views(self) -> Sequence[View]:
        """The other views that completions are scored under, each a forward without gradient."""
        return ()

    def measures(self) -> Sequence[Measure]:
        """What the forward is to tell of tokens, without gradient, for ``advantages``."""
        return ()

    def live_measures(self) -> Sequence[Measure]:
        """The same with gradient, for ``penalty``. Scoring, if there is any, is then apart."""
        return ()

    def advantages(
        self, advantages: list[Tensor], scores: Sequence[Scores], across: Across
    ) -> list[Tensor]:
        """The advantages (N,) of every group's tokens. All groups of this process where
        ``sees_batch``, else one.
        """
        return advantages

    def penalty(self, tokens: Tokens) -> Tensor | None:
        """What is added to the objective to minimise for every token, (N,), before it is averaged
        as the loss says.
        """
        return None


HOOKS = ("sampled_under", "views", "measures", "live_measures", "advantages", "penalty")


def changes_maths(method: type[Method]) -> bool:
    """Whether a paper changes more than rewards and values."""
    return any(overrides(method, hook) for hook in HOOKS)


def overrides(method: Method | type[Method], hook: str) -> bool:
    """Whether a method has a hook of its own."""
    kind = method if isinstance(method, type) else type(method)
    return getattr(kind, hook) is not getattr(Method, hook)
